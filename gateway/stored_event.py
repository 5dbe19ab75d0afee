"""An event as the log holds it, whether it came live or was read.

It is opened and checked at most once, and encoded at most once per form, however many
connections it goes to.

Source: docs/protocol.md, "Events" and "WebSocket protocol".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import cbor2
import msgspec

from jarvis_mesh.config.log import STREAM
from jarvis_mesh.schema.codec import decode_body, plain_bytes
from jarvis_mesh.schema.errors import MeshError
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
    """One event of the log, with what it is sent as.

    What is found out about it is kept in plain attributes: `functools.cached_property` of Python
    3.11 takes a lock, which cost 4 µs of the 25 that an event did.
    """

    __slots__ = (
        "_cbor",
        "_event_json",
        "_json",
        "_steered",
        "body",
        "place",
        "seq",
        "size_bytes",
        "tokens",
    )

    def __init__(self, place: Place, headers: bytes, body: bytes) -> None:
        self.place = place
        self.seq = place.seq
        self.body = body
        self.tokens = tokens_of(place.subject)
        """The seven tokens of its subject; empty if that is none of ours."""
        # The server appends its header to the publisher's: two of them mean that an answer
        # of the server was steered into the log as if it were an event.
        self._steered = headers.count(_OWN_STREAM) > 1
        self.size_bytes = plain_bytes(body)
        """Of what is kept of it: bodies of a kilobyte can expand to megabytes."""
        self._event_json: bytes | None = None
        self._json = b""
        self._cbor = b""

    @property
    def subject(self) -> str:
        """What it was published on."""
        return self.place.subject

    @property
    def is_tick(self) -> bool:
        """Whether it is a gateway's own tick."""
        return self.place.subject.startswith(_TICK)

    @property
    def is_hidden(self) -> bool:
        """Whether no filter can be for it: ticks, and what isn't on a seven-token subject."""
        return not self.tokens or self.is_tick

    @property
    def is_readable(self) -> bool:
        """Whether the body is a valid event, and this subject's."""
        if self._event_json is None:
            self._event_json = b"" if self._steered else self._open()
        return bool(self._event_json)

    def _open(self) -> bytes:
        """Return the event as JSON; empty if it isn't readable.

        The event itself isn't kept: one byte of CBOR can be a list, which takes 64.
        """
        try:
            event = decode_body(self.body)
        except MeshError:
            return b""
        return msgspec.json.encode(event.to_map()) if event.subject == self.subject else b""

    @property
    def json(self) -> bytes:
        """The untagged message to a JSON client. Only for a readable event."""
        if not self._json:
            self._json = b'{"op":"event","seq":%d,"event":%s}' % (self.seq, self.event_json)
        return self._json

    def json_for(self, sub: str) -> bytes:
        """Return the message that only subscription *sub* of a JSON client gets."""
        return b'{"op":"event","sub":%s,"seq":%d,"event":%s}' % (
            msgspec.json.encode(sub),
            self.seq,
            self.event_json,
        )

    @property
    def numbered_json(self) -> bytes:
        """The sequence and the event, as HTTP answers have them."""
        return b'{"seq":%d,"event":%s}' % (self.seq, self.event_json)

    @property
    def cbor(self) -> bytes:
        """The untagged message to a CBOR client, `[seq, body]`."""
        if not self._cbor:
            self._cbor = cbor2.dumps([self.seq, self.body])
        return self._cbor

    def cbor_for(self, sub: str) -> bytes:
        """Return the message that only subscription *sub* of a CBOR client gets."""
        return cbor2.dumps([self.seq, self.body, sub])

    @property
    def event_json(self) -> bytes:
        """The event alone."""
        assert self.is_readable, "only readable events are sent"  # noqa: S101
        assert self._event_json is not None  # noqa: S101 - it was just opened
        return self._event_json


@lru_cache(maxsize=4096)  # subjects come again and again: 2 µs, then 0.1
def tokens_of(subject: str) -> tuple[str, ...]:
    """Return the seven tokens of *subject*; none if it isn't one of ours."""
    return tuple(subject.split(".")) if is_subject(subject) else ()


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
