"""The forms in which clients are served; everything that differs between them.

Source: docs/protocol.md, "WebSocket protocol" and "HTTP".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from websockets.frames import Frame, Opcode

from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.wire import (
    CBOR_SUBPROTOCOL,
    JSON_SUBPROTOCOL,
    Closing,
    Error,
    Gap,
    Heartbeat,
    Lagging,
    Live,
    Notice,
    Subscribed,
    encode_cbor,
    encode_json,
)


class Format(Hashable, Protocol):
    """How messages become bytes. Equal formats share what is encoded."""

    @property
    def separator(self) -> bytes:
        """What stands between messages that are sent together."""

    def frame(self, joined: bytes) -> bytes:
        """Return messages that are sent together as they go over a WebSocket's connection."""

    def encode(self, notice: Notice) -> bytes:
        """Return the bytes of anything but an event."""

    def event(self, event: StoredEvent) -> bytes:
        """Return the bytes of an event for all live subscriptions."""

    def event_for(self, event: StoredEvent, sub: str) -> bytes:
        """Return the bytes of an event for one subscription."""


@dataclass(frozen=True)
class Json:
    """JSON objects: in text messages of a WebSocket, or as lines (`terminated`) over HTTP."""

    terminated: bool = False
    subprotocol = JSON_SUBPROTOCOL
    is_text = True

    @property
    def separator(self) -> bytes:
        return b"" if self.terminated else b"\n"

    def frame(self, joined: bytes) -> bytes:
        return _frame(Opcode.TEXT, joined)

    def encode(self, notice: Notice) -> bytes:
        return self._line(encode_json(notice))

    def event(self, event: StoredEvent) -> bytes:
        return self._line(event.json)

    def event_for(self, event: StoredEvent, sub: str) -> bytes:
        return self._line(event.json_for(sub))

    def _line(self, message: bytes) -> bytes:
        return message + b"\n" if self.terminated else message


@dataclass(frozen=True)
class Cbor:
    """A CBOR sequence (RFC 8742) in binary messages of a WebSocket."""

    subprotocol = CBOR_SUBPROTOCOL
    is_text = False
    separator = b""

    def frame(self, joined: bytes) -> bytes:
        return _frame(Opcode.BINARY, joined)

    def encode(self, notice: Notice) -> bytes:
        return encode_cbor(notice)

    def event(self, event: StoredEvent) -> bytes:
        return event.cbor

    def event_for(self, event: StoredEvent, sub: str) -> bytes:
        return event.cbor_for(sub)


@dataclass(frozen=True)
class ServerSentEvents:
    """An event stream for browsers' EventSource; every `id` is a cursor.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    epoch: str
    separator = b""

    def frame(self, joined: bytes) -> bytes:
        return joined  # never over a WebSocket

    def encode(self, notice: Notice) -> bytes:
        match notice:
            case Subscribed() | Heartbeat():
                return b"id: %s\n\n" % notice.cursor.encode()
            case Gap() | Live():
                name = b"gap" if isinstance(notice, Gap) else b"live"
                cursor, content = notice.cursor.encode(), encode_json(notice)
                return b"id: %s\nevent: %s\ndata: %s\n\n" % (cursor, name, content)
            case Error():
                return b"event: error\ndata: %s\n\n" % encode_json(notice)
            case Closing():
                return b"retry: %d\n\n" % notice.retry_ms
            case Lagging():
                return b": lagging, %d behind\n\n" % notice.behind
        raise AssertionError(f"{notice} is never said over HTTP")

    def event(self, event: StoredEvent) -> bytes:
        return b"id: %s:%d\ndata: %s\n\n" % (self.epoch.encode(), event.seq, event.numbered_json)

    def event_for(self, event: StoredEvent, sub: str) -> bytes:
        return self.event(event)


def _frame(opcode: Opcode, joined: bytes) -> bytes:
    return Frame(opcode, joined).serialize(mask=False)


JSON: Final = Json()
CBOR: Final = Cbor()
JSON_LINES: Final = Json(terminated=True)
SOCKET_FORMATS: Final = (CBOR, JSON)
_BY_SUBPROTOCOL: Final = {each.subprotocol: each for each in SOCKET_FORMATS}


def choose_format(offered: Sequence[str]) -> Json | Cbor | None:
    """Return the form for the subprotocols that a client offers; `None` if it knows neither."""
    if not offered:
        return JSON
    return next((_BY_SUBPROTOCOL[name] for name in offered if name in _BY_SUBPROTOCOL), None)
