"""From a type, a payload and some keywords to an event that the log will take."""

from __future__ import annotations

import socket
from typing import Final, TypedDict

from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.event import JSON, Event, Metadata, Priority, check_event, new_id
from jarvis_mesh.schema.types import EventType, TypeRegistry

_HOST_FAMILY: Final = "system:"
"""Events of this family are about the machine unless their payload names a host."""


class Filing(TypedDict, total=False):
    """What an event is filed under, all optional; `None` counts as absent."""

    entity: str | None
    """What it is about; filled from the payload (`agentId`, …) when absent."""
    user: str | None
    session: str | None
    priority: Priority | None
    traceparent: str | None
    base: str | None
    id: str | None
    """A UUIDv7; pass the same one to publish an event again that may be in the log."""


class EventBuilder:
    """Makes the events of one source."""

    def __init__(self, source: str, types: TypeRegistry, clock: Clock) -> None:
        self.source = source
        self._types = types
        self._clock = clock
        self._host = socket.gethostname()

    def build(self, event_type: str, payload: JSON, filing: Filing) -> Event:
        """Return the event, checked.

        Raises:
            EventError: the type is unknown, the payload isn't what the type requires, or a
                value can't be a subject token.
        """
        known = self._types.check(event_type, payload)
        if unknown := filing.keys() - Filing.__annotations__.keys():
            raise EventError(f"no metadata is named {', '.join(sorted(unknown))}")
        about = dict(filing)
        event_id = about.pop("id", None)
        if about.get("entity") is None:
            about["entity"] = self._entity(known, payload)
        now = self._clock.time_ms()
        event = Event(
            id=new_id(now) if event_id is None else str(event_id),
            type=event_type,
            source=self.source,
            timestamp=now,
            payload=payload,
            metadata=Metadata(**about),  # type: ignore[arg-type]  # the keys of Filing
        )
        check_event(event)
        return event

    def _entity(self, known: EventType, payload: JSON) -> str | None:
        value = payload.get(known.entity_key) if isinstance(payload, dict) else None
        if value is None and known.name.startswith(_HOST_FAMILY):
            return self._host
        if value is not None and not isinstance(value, str):
            raise EventError(f"payload.{known.entity_key}: it names the entity, so it must be text")
        return value
