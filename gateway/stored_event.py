"""An event as the log holds it, whether it came live or was read.

It is opened and checked at most once, and encoded at most once per form, however many
connections it goes to.

Source: docs/protocol.md, "Events" and "WebSocket protocol".
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

import cbor2
import msgspec

from jarvis_mesh.config.log import STREAM
from jarvis_mesh.schema.codec import decode_body
from jarvis_mesh.schema.errors import MeshError
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.subjects import TICK_FAMILY, is_subject

# Not at the start of a line: the server glues its headers to a publisher's malformed ones.
_STREAM: Final = b"Nats-Stream: "
_SUBJECT: Final = b"Nats-Subject: "
_SEQUENCE: Final = b"Nats-Sequence: "
_OWN_STREAM: Final = b"Nats-Stream:"
_EVENTS: Final = STREAM.encode()
_TICK: Final = f"{TICK_FAMILY}."


class Place(NamedTuple):
    """Where a message stands in the log, from the headers that the server added."""

    subject: str
    seq: int


class StoredEvent:
    """One event of the log, with what it is sent as."""

    def __init__(self, place: Place, headers: bytes, body: bytes) -> None:
        self.seq = place.seq
        self.subject = place.subject
        self.body = body
        # The server appends its header to the publisher's: two of them mean that an answer
        # of the server was steered into the log as if it were an event.
        self._steered = headers.count(_OWN_STREAM) > 1

    @property
    def is_tick(self) -> bool:
        """Whether it is a gateway's own tick."""
        return self.subject.startswith(_TICK)

    @property
    def is_hidden(self) -> bool:
        """Whether no filter can be for it: ticks, and what isn't on a seven-token subject."""
        return self.is_tick or not is_subject(self.subject)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The seven tokens of its subject."""
        return tuple(self.subject.split("."))

    @cached_property
    def event(self) -> Event | None:
        """The event; `None` if the body is no valid one or not this subject's."""
        if self._steered:
            return None
        try:
            event = decode_body(self.body)
        except MeshError:
            return None
        return event if event.subject == self.subject else None

    @cached_property
    def json(self) -> bytes:
        """The untagged message to a JSON client. Only for a readable event."""
        return b'{"op":"event","seq":%d,"event":%s}' % (self.seq, self._event_json)

    def json_for(self, sub: str) -> bytes:
        """Return the message that only subscription *sub* of a JSON client gets."""
        return b'{"op":"event","sub":%s,"seq":%d,"event":%s}' % (
            msgspec.json.encode(sub),
            self.seq,
            self._event_json,
        )

    @property
    def numbered_json(self) -> bytes:
        """The sequence and the event, as HTTP answers have them."""
        return b'{"seq":%d,"event":%s}' % (self.seq, self._event_json)

    @cached_property
    def cbor(self) -> bytes:
        """The untagged message to a CBOR client, `[seq, body]`."""
        return cbor2.dumps([self.seq, self.body])

    def cbor_for(self, sub: str) -> bytes:
        """Return the message that only subscription *sub* of a CBOR client gets."""
        return cbor2.dumps([self.seq, self.body, sub])

    @cached_property
    def _event_json(self) -> bytes:
        assert self.event is not None, "only readable events are sent"  # noqa: S101
        return msgspec.json.encode(self.event.to_map())


def place_in_log(headers: bytes) -> Place | None:
    """Return where the server says that a message stands; `None` if it isn't of our log.

    The publisher's own headers come first and may be forged: the last occurrence counts.
    """
    if _last(headers, _STREAM) != _EVENTS:
        return None
    seq = _last(headers, _SEQUENCE)
    if not seq.isdigit():
        return None
    return Place(_last(headers, _SUBJECT).decode(errors="replace"), int(seq))


def _last(headers: bytes, name: bytes) -> bytes:
    start = headers.rfind(name)
    if start < 0:
        return b""
    start += len(name)
    return headers[start : headers.find(b"\r\n", start)]
