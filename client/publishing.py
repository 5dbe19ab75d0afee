"""Publishing through the gateway: events out, their sequences back. No socket here.

An event that got no answer before the connection broke is sent again on the next one, with the
same id, by which the log recognizes it. Publishing has a connection of its own: a reader that
is paused because its user takes events slowly couldn't see the answers, and a user who
publishes within `async for` would wait for ever.

Source: docs/protocol.md, "WebSocket protocol" and "Events".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jarvis_mesh.client.formats import Format, Item
from jarvis_mesh.schema import wire
from jarvis_mesh.schema.errors import (
    MeshError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
    error_from_wire,
)
from jarvis_mesh.schema.event import check_id
from jarvis_mesh.schema.json_value import check_json
from jarvis_mesh.schema.subjects import subject_of
from jarvis_mesh.schema.wire import MAX_MESSAGE_BYTES, NewEvent, Welcome

MAX_WAITING: Final = 256
"""Events that wait for their answers at once; the next `publish` waits for one of them."""
RETRY_WITHIN: Final = 100.0
"""Seconds after which an event isn't sent again: the log recognizes ids for two minutes."""
ANY_SOURCE: Final = "client"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """An event that the log has."""

    id: str
    seq: int


@dataclass(slots=True)
class _Waiting:
    message: str | bytes
    answer: asyncio.Future[int]
    was_sent: bool = False


class Publishing:
    """The events on their way to the log: the peer of a connection that subscribes to nothing.

    Args:
        say: Sends an encoded message, if there is a connection.
        form: What encodes it.
    """

    def __init__(self, say: Callable[[str | bytes], None], form: Format) -> None:
        self._say = say
        self._form = form
        self._is_connected = False
        self._is_closed = False
        self._max_bytes = MAX_MESSAGE_BYTES
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._slots = asyncio.Semaphore(MAX_WAITING)
        self._trouble = "it has not connected yet"

    async def publish(self, event: NewEvent, timeout: float) -> Published:  # noqa: ASYNC109
        """Return once the log has *event*, which has an id.

        Args:
            event: As the user gave it.
            timeout: Seconds, at most 100; part of the contract, since it bounds the retries.

        Raises:
            EventError, TooLargeError: it can't be published as it is.
            UnavailableError: no connection within *timeout*; it was never sent.
            OutcomeUnknownError: it was sent, but no answer came within *timeout*.
            MeshError: the gateway refused it.
        """
        assert event.id is not None, "the caller gives one, for retries"  # noqa: S101
        _check(event)
        waiting: _Waiting | None = None
        try:
            async with asyncio.timeout(min(timeout, RETRY_WITHIN)), self._slots:
                number = next(self._numbers)
                waiting = self._enter(number, event)
                try:
                    return Published(event.id, await waiting.answer)
                finally:
                    del self._waiting[number]
        except TimeoutError:
            if waiting is not None and waiting.was_sent:
                raise OutcomeUnknownError(
                    f"no answer for the event {event.id} within {timeout:g} s: it may be in the "
                    "log; publish it again with that id"
                ) from None
            raise UnavailableError(
                f"the event {event.id} couldn't be sent within {timeout:g} s: {self._trouble}"
            ) from None

    def close(self) -> None:
        """Let everybody who waits know that no answer will come. Idempotent."""
        self._is_closed = True
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(_disconnected(waiting))

    # What the connection says

    def opened(self, welcome: Welcome) -> None:
        """Send again what has no answer yet."""
        self._is_connected = True
        self._trouble = "too many others wait for their answers"
        self._max_bytes = welcome.limits.message_bytes
        for waiting in self._waiting.values():
            self._send(waiting)

    def cut(self, reason: str) -> None:
        """Note that the connection is gone; what waits is sent on the next one."""
        self._is_connected = False
        self._trouble = reason

    def failed(self, error: MeshError) -> None:
        """Note why there is no connection."""
        self._trouble = error.message

    def receive(self, item: Item) -> None:
        """Hand an answer to who waits for it."""
        match item:
            case wire.Published(id=int() as number, seq=seq) if waiting := self._find(number):
                waiting.answer.set_result(seq)
            case wire.Error(id=int() as number) if waiting := self._find(number):
                waiting.answer.set_exception(error_from_wire(item.code, item.message))
            case wire.Error():
                log.warning("the gateway says %s: %s", item.code, item.message)
            case _:
                pass  # heartbeats, and answers that came too late

    def _find(self, number: int) -> _Waiting | None:
        waiting = self._waiting.get(number)
        return None if waiting is None or waiting.answer.done() else waiting

    def _enter(self, number: int, event: NewEvent) -> _Waiting:
        if self._is_closed:
            raise UnavailableError(f"the event {event.id} wasn't sent: the mesh is disconnected")
        message = self._form.encode(wire.Publish(id=number, event=event))
        size = len(message) if isinstance(message, bytes) else len(message.encode())
        if size > self._max_bytes:
            raise TooLargeError(
                f"the event takes {size:,} bytes, over the gateway's {self._max_bytes:,}: "
                "publish a reference to what is large"
            )
        waiting = _Waiting(message, asyncio.get_running_loop().create_future())
        self._waiting[number] = waiting
        if self._is_connected:
            self._send(waiting)
        return waiting

    def _send(self, waiting: _Waiting) -> None:
        waiting.was_sent = True
        self._say(waiting.message)


def _check(event: NewEvent) -> None:
    """Raise `EventError` for what the gateway would refuse anyway, before it waits in line."""
    about = event.metadata
    subject_of(event.type, ANY_SOURCE, entity=about.entity, user=None, session=about.session)
    check_json(event.payload, "payload")
    check_id(event.id or "")


def _disconnected(waiting: _Waiting) -> MeshError:
    if waiting.was_sent:
        return OutcomeUnknownError("disconnected before an answer came: it may be in the log")
    return UnavailableError("disconnected before the event was sent")
