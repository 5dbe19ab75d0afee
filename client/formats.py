"""The two forms of protocol v1, as a client reads and writes them. No socket here.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from jarvis_mesh.schema.codec import decode_body, iter_items
from jarvis_mesh.schema.errors import BadRequestError, UnknownOpError
from jarvis_mesh.schema.event import Event, parse_event
from jarvis_mesh.schema.wire import (
    CBOR_SUBPROTOCOL,
    JSON_SUBPROTOCOL,
    Notice,
    Request,
    decode_json,
    encode_cbor,
    encode_json,
    parse_notice,
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event off the wire."""

    seq: int
    sub: str | None
    """The subscription that it is for; `None` for all live ones that it matches."""
    event: Event | BadRequestError
    """The event, or why it can't be read: then the feed goes on without it."""
    wire_bytes: int
    """What it took on the wire: what queues are bounded by."""


Item: TypeAlias = Notice | Arrival
FormatName: TypeAlias = Literal["cbor", "json"]


class Format(Protocol):
    """How messages become bytes and back."""

    subprotocol: str

    def encode(self, request: Request) -> str | bytes:
        """Return one WebSocket message."""

    def decode(self, message: str | bytes) -> Iterator[Item]:
        """Yield what a gateway's message says; operations that are newer than we are left out.

        Raises:
            BadRequestError: it isn't this protocol; nothing after it can be trusted.
        """


class JsonFormat:
    """JSON objects separated by line breaks, in text messages."""

    subprotocol = JSON_SUBPROTOCOL

    def encode(self, request: Request) -> str:
        return encode_json(request).decode()

    def decode(self, message: str | bytes) -> Iterator[Item]:
        if isinstance(message, bytes):
            raise BadRequestError("a binary message, though JSON was agreed on")
        for line in message.split("\n"):
            if line:
                yield from self._decode_line(line)

    def _decode_line(self, line: str) -> Iterator[Item]:
        value = decode_json(line)
        match value:
            case {"op": "event", "seq": seq, "event": content} if _is_seq(seq):
                sub = value.get("sub")
                yield Arrival(seq, _check_sub(sub), _open_map(content), len(line))
            case {"op": "event"}:
                raise BadRequestError(f"no event: {line[:100]}")
            case _:
                yield from _parse_known(value)


class CborFormat:
    """A CBOR sequence (RFC 8742) in binary messages; events are arrays."""

    subprotocol = CBOR_SUBPROTOCOL

    def encode(self, request: Request) -> bytes:
        return encode_cbor(request)

    def decode(self, message: str | bytes) -> Iterator[Item]:
        if isinstance(message, str):
            raise BadRequestError("a text message, though CBOR was agreed on")
        for value in iter_items(message):
            match value:
                case [seq, bytes() as body, *rest] if _is_seq(seq) and len(rest) <= 1:
                    sub = _check_sub(rest[0]) if rest else None
                    yield Arrival(seq, sub, _open_body(body), len(body))
                case dict():
                    yield from _parse_known(value)
                case _:
                    raise BadRequestError(f"neither a message nor an event: {value!r:.100}")


FORMATS: Final[dict[FormatName, Format]] = {"cbor": CborFormat(), "json": JsonFormat()}


def _parse_known(value: object) -> Iterator[Notice]:
    try:
        yield parse_notice(value)
    except UnknownOpError:
        return  # a gateway may be newer than its clients: what they don't know isn't for them


def _open_body(body: bytes) -> Event | BadRequestError:
    try:
        return decode_body(body)
    except BadRequestError as error:
        return error


def _open_map(content: object) -> Event | BadRequestError:
    try:
        return parse_event(content)
    except BadRequestError as error:
        return error


def _is_seq(value: object) -> bool:
    return type(value) is int and value > 0


def _check_sub(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadRequestError(f"sub: {value!r:.60} isn't text")
