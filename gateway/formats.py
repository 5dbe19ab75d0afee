"""The two forms in which a client can be served; everything that differs between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.wire import (
    CBOR_SUBPROTOCOL,
    JSON_SUBPROTOCOL,
    Notice,
    encode_cbor,
    encode_json,
)


@dataclass(frozen=True, slots=True)
class _Traits:
    subprotocol: str
    is_text: bool
    separator: bytes


class Format(Enum):
    """JSON lines in text messages, or CBOR sequences (RFC 8742) in binary ones."""

    JSON = _Traits(JSON_SUBPROTOCOL, True, b"\n")
    CBOR = _Traits(CBOR_SUBPROTOCOL, False, b"")

    @property
    def subprotocol(self) -> str:
        return self.value.subprotocol

    @property
    def is_text(self) -> bool:
        """Whether its messages are text messages of the WebSocket."""
        return self.value.is_text

    @property
    def separator(self) -> bytes:
        """What stands between messages that are sent together."""
        return self.value.separator

    def encode(self, notice: Notice) -> bytes:
        """Return the bytes of anything but an event."""
        return encode_json(notice) if self is Format.JSON else encode_cbor(notice)

    def event(self, event: StoredEvent) -> bytes:
        """Return the bytes of a live event, made once for all connections."""
        return event.json if self is Format.JSON else event.cbor

    def event_for(self, event: StoredEvent, sub: str) -> bytes:
        """Return the bytes of an event for one subscription."""
        return event.json_for(sub) if self is Format.JSON else event.cbor_for(sub)
