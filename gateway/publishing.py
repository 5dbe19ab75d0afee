"""Publishing what clients say: the gateway adds source, user and timestamp.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import msgspec

from jarvis_mesh.config.nats_conf import CLIENT_SOURCE
from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.inbox import Answer, ConnectionBrokeError, Inbox, NotPermittedError
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.codec import encode_body
from jarvis_mesh.schema.errors import (
    ForbiddenError,
    MeshError,
    OutcomeUnknownError,
    UnavailableError,
)
from jarvis_mesh.schema.event import Event, check_event, new_id
from jarvis_mesh.schema.types import TypeRegistry
from jarvis_mesh.schema.wire import NewEvent

_SERVER_ERRORS: Final = 500
"""From here on an error of JetStream is the server's state, not the event's form."""
_IN_PROCESS: Final = 10158
"""An earlier try of the same id is being stored."""


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
            ForbiddenError: nothing grants it, or NATS doesn't let the gateway publish it.
            UnavailableError: the log didn't take it.
            DeadlineError: it was sent and not confirmed; publish it again with the same id.
        """
        event = self._complete(new, grants)
        ack = json.loads((await self._ask(event)).body)
        if error := ack.get("error"):
            raise _refusal(error)
        return Stored(event.id, ack["seq"])

    async def _ask(self, event: Event) -> Answer:
        body, headers = encode_body(event), {"Nats-Msg-Id": event.id}
        try:
            return (await self._inbox.ask(event.subject, body, headers=headers))[-1]
        except NotPermittedError as error:
            family = event.type.partition(":")[0]
            raise ForbiddenError(
                f"{error.message}; if the family {family} is new, NATS needs its users written anew"
            ) from None
        except ConnectionBrokeError as error:
            raise OutcomeUnknownError(
                f"{error.message} before the log answered; publish it again with the same id"
            ) from None

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
        grants.check_publish(event.subject)
        return event


def _refusal(error: dict[str, Any]) -> MeshError:
    reason = error.get("description")
    if error.get("code", _SERVER_ERRORS) >= _SERVER_ERRORS or error.get("err_code") == _IN_PROCESS:
        # A node of a cluster that fails while it stores has told the others already.
        return OutcomeUnknownError(
            f"the log didn't confirm the event ({reason}); publish it again with the same id"
        )
    return UnavailableError(f"the log refused the event: {reason}")
