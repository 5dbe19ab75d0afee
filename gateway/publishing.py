"""Publishing what clients say: the gateway adds source, user and timestamp.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

import msgspec

from jarvis_mesh.config.nats_conf import CLIENT_SOURCE
from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.inbox import Inbox
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.codec import encode_body
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError
from jarvis_mesh.schema.event import Event, check_event, new_id
from jarvis_mesh.schema.types import TypeRegistry
from jarvis_mesh.schema.wire import NewEvent

_IN_PROCESS: Final = 10158
"""JetStream's code for an id that a cluster is still storing, sent by an earlier try."""


class Stored(NamedTuple):
    """An event that the log has."""

    id: str
    seq: int


class Publishing:
    """Stores clients' events in the log."""

    def __init__(self, inbox: Inbox, types: TypeRegistry, clock: Clock) -> None:
        self._inbox = inbox
        self._types = types
        self._clock = clock

    async def publish(self, new: NewEvent, grants: Grants) -> Stored:
        """Store an event and return its id and sequence once the log has it.

        An id that the log has seen within two minutes isn't stored again; the sequence is
        that of the first time.

        Raises:
            EventError, TooLargeError: it isn't an event that the log takes.
            UnavailableError, DeadlineError: the log didn't confirm it; publish it again with
                the same id.
        """
        event = self._complete(new, grants)
        answers = await self._inbox.ask(
            event.subject, encode_body(event), headers={"Nats-Msg-Id": event.id}
        )
        ack = json.loads(answers[-1].body)
        if error := ack.get("error"):
            if error.get("err_code") == _IN_PROCESS:
                raise DeadlineError("the log is still storing this event; try again with its id")
            raise UnavailableError(f"the log refused the event: {error.get('description')}")
        return Stored(event.id, ack["seq"])

    def _complete(self, new: NewEvent, grants: Grants) -> Event:
        now = self._clock.time_ms()
        known = self._types.check(new.type, new.payload)
        metadata = msgspec.structs.replace(new.metadata, user=grants.user)
        if metadata.entity is None and known.entity_key and isinstance(new.payload, dict):
            entity = new.payload.get(known.entity_key)
            metadata = msgspec.structs.replace(metadata, entity=entity)
        event = Event(
            id=new_id(now) if new.id is None else new.id,
            type=new.type,
            source=CLIENT_SOURCE,
            timestamp=now,
            payload=new.payload,
            metadata=metadata,
        )
        check_event(event)
        return event
