"""The events of the fan-out benchmark: real ones, that a receiver counts without parsing.

Each holds a *record*: a marker that occurs nowhere else, its number and when it was published.
It is text within the payload, so it is the same bytes in CBOR, in JSON and in any framing.

An event is built and encoded once for each user; publishing it means writing the record and the
id's last digits into the bytes as they go to the server, which takes about a microsecond.
"""

from __future__ import annotations

import json
import os
import time
from typing import Final, Literal

import cbor2
import msgspec

from jarvis_mesh.schema.event import JSON, Event, Metadata, new_id

MARKER: Final = b"ABCDEFGHIJKLMNOP"
"""Capitals: `bytes.count` then skips 16 bytes at a time of small letters and digits, whose low six
bits, which it goes by, are never those of a capital."""
NUMBER_DIGITS: Final = 10
TIME_DIGITS: Final = 19
NUMBER_AT: Final = len(MARKER)
TIME_AT: Final = NUMBER_AT + NUMBER_DIGITS
RECORD_BYTES: Final = TIME_AT + TIME_DIGITS
_ID_DIGITS: Final = 12

Form = Literal["nats", "rooms", "length"]
"""How a server is fed: through JetStream, as JSON lines with rooms, or as length and bytes."""
ACK_SUBJECT: Final = "_INBOX.bench.ack"


def make_event(user: str, body_bytes: int) -> Event:
    """Return an event of *body_bytes* as CBOR.

    The smallest envelope takes 110 bytes: below 200, the number is that of the payload alone.
    """
    if body_bytes < 200:
        event = _event(Metadata(), _text(body_bytes))
        return msgspec.structs.replace(event, type="system:metrics", source="s")
    about = Metadata(user=user, entity="a7")
    text_bytes = body_bytes
    while (over := len(cbor2.dumps(_status(about, text_bytes).to_map())) - body_bytes) > 0:
        text_bytes -= over
    return _status(about, text_bytes)


def _status(about: Metadata, text_bytes: int) -> Event:
    return _event(about, {"agentId": "a7", "status": _text(text_bytes)})


def _event(about: Metadata, payload: JSON) -> Event:
    now = time.time_ns() // 1_000_000
    return Event(
        id=new_id(now),
        type="agent:status",
        source="agent-service",
        timestamp=now,
        payload=payload,
        metadata=about,
    )


def _text(size: int) -> str:
    """Return an empty record, and noise after it."""
    record = MARKER.decode() + "0" * (NUMBER_DIGITS + TIME_DIGITS)
    return (record + os.urandom(size).hex())[:size]


class Template:
    """One user's event, as bytes for the server's feed."""

    def __init__(self, event: Event, form: Form, rooms: list[str]) -> None:
        self._wire = bytearray(_wire(event, form, rooms))
        self._record_at = self._wire.index(MARKER)
        self._ids = [
            at + len(event.id) - _ID_DIGITS for at in _places(self._wire, event.id.encode())
        ]

    def publish(self, number: int, now_ns: int) -> bytes:
        """Return the bytes that publish the event as the one with this *number*."""
        wire, at = self._wire, self._record_at
        wire[at + NUMBER_AT : at + RECORD_BYTES] = b"%010d%019d" % (number, now_ns)
        digits = b"%012x" % number
        for at in self._ids:
            wire[at : at + _ID_DIGITS] = digits
        return bytes(wire)


def _places(wire: bytearray, text: bytes) -> list[int]:
    places, at = [], wire.find(text)
    while at >= 0:
        places.append(at)
        at = wire.find(text, at + 1)
    return places


def _wire(event: Event, form: Form, rooms: list[str]) -> bytes:
    if form == "rooms":
        line = {"rooms": rooms, "event": event.to_map()}
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"
    # Never zstd, whatever the size: the marker must be there to be seen.
    body = cbor2.dumps(event.to_map())
    if form == "length":
        return len(body).to_bytes(4, "big") + body
    headers = f"NATS/1.0\r\nNats-Msg-Id: {event.id}\r\n\r\n"
    sizes = f"{len(headers)} {len(headers) + len(body)}"
    head = f"HPUB {event.subject} {ACK_SUBJECT} {sizes}\r\n{headers}"
    return head.encode() + body + b"\r\n"
