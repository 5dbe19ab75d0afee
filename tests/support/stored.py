"""Events as the log holds them, made without a log."""

from __future__ import annotations

from typing import Any

from jarvis_mesh.gateway.stored_event import Place, StoredEvent
from jarvis_mesh.schema import encode_body
from tests.support.publishing import make_event


def stored(seq: int, event_type: str = "agent:created", /, **fields: Any) -> StoredEvent:
    """Return a readable event at *seq*."""
    event = make_event(event_type, **fields)
    return StoredEvent(Place(event.subject, seq), b"", encode_body(event))


def unreadable(seq: int, subject: str) -> StoredEvent:
    """Return an event of the log whose body is nonsense."""
    return StoredEvent(Place(subject, seq), b"", b"nonsense")
