"""Publishing through the gateway: events out, their sequences back. No socket here.

An event that got no answer before the connection broke is sent again on the next one, with the
same id, by which the log recognizes it.

Source: docs/protocol.md, "WebSocket protocol" and "Events".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from jarvis_mesh.client.calls import Call, Calls
from jarvis_mesh.schema import wire
from jarvis_mesh.schema.event import check_id
from jarvis_mesh.schema.json_value import check_json
from jarvis_mesh.schema.subjects import subject_of
from jarvis_mesh.schema.wire import NewEvent

MAX_WAITING: Final = 256
"""Events that wait for their answers at once; the next `publish` waits for one of them."""
RETRY_WITHIN: Final = 100.0
"""Seconds after which an event isn't sent again: the log recognizes ids for two minutes."""
ANY_SOURCE: Final = "client"


@dataclass(frozen=True, slots=True)
class Published:
    """An event that the log has."""

    id: str
    seq: int


class Publishing:
    """The events on their way to the log.

    Args:
        calls: Sends them and hands back the answers.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._slots = asyncio.Semaphore(MAX_WAITING)

    async def publish(self, event: NewEvent, timeout: float) -> Published:  # noqa: ASYNC109
        """Return once the log has *event*, which has an id.

        Args:
            event: As the user gave it.
            timeout: Seconds, at most 100; part of the contract, since it bounds the retries.

        Raises:
            EventError, TooLargeError: it can't be published as it is.
            UnavailableError: no connection within *timeout*; it was never sent.
            OutcomeUnknownError: it was sent, but no answer came within *timeout*.
            MeshError: the gateway refused it, or us.
        """
        assert event.id is not None, "the caller gives one, for retries"  # noqa: S101
        _check(event)
        doubt = "it may be in the log: publish it again with that id"
        call = Call(f"the event {event.id}", doubt, is_repeatable=True)
        try:
            async with asyncio.timeout(min(timeout, RETRY_WITHIN)), self._slots:
                with self._calls.asking(call, lambda number: wire.Publish(id=number, event=event)):
                    return Published(event.id, await call.answer)
        except TimeoutError:
            raise self._calls.too_late(call, timeout) from None


def _check(event: NewEvent) -> None:
    """Raise `EventError` for what the gateway would refuse anyway, before it waits in line."""
    about = event.metadata
    subject_of(event.type, ANY_SOURCE, entity=about.entity, user=None, session=about.session)
    check_json(event.payload, "payload")
    check_id(event.id or "")
