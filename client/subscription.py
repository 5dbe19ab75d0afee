"""A subscription as its user holds it: an async iterator over events, with a cursor."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jarvis_mesh.client.feed import Feed
from jarvis_mesh.client.flow import Flow
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.errors import MeshError, UnavailableError
from jarvis_mesh.schema.event import Event

HIGH_WATER_EVENTS: Final = 1024
HIGH_WATER_BYTES: Final = 8 * 1024 * 1024
"""On the wire. At either mark the reader stops after the message at hand (at most a few MiB);
at a quarter of both it goes on."""


@dataclass(frozen=True, slots=True)
class _Queued:
    event: Event
    cursor: Cursor
    wire_bytes: int


class Subscription:
    """The events of some channels, once each and in order, across reconnects.

    Iterate over it with `async for`, or register listeners with `Mesh.on`; it lives until
    `close` or the end of its `Mesh`. An event waits here for the iterator if iterating has
    begun, or if nobody listens for events; when 1,024 wait, the whole connection pauses until
    they are taken. So close what you stop iterating over:

        with contextlib.closing(mesh.subscribe("event:agent:**")) as subscription:
            async for event in subscription:
                ...

    `Mesh.subscribe` makes them.
    """

    def __init__(self, feed: Feed, flow: Flow, on_close: Callable[[Subscription], None]) -> None:
        self.feed = feed
        self.is_iterated = False
        """Whether iterating has begun."""
        self.unreadable = 0
        """Events that came but couldn't be read; each was said to the "error" listeners."""
        self._flow = flow
        self._on_close = on_close
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._taken = feed.cursor
        self._changed = asyncio.Event()
        self._is_accepted = asyncio.Event()
        self._is_over = False
        self._error: MeshError | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """What it is for."""
        return self.feed.channels

    @property
    def cursor(self) -> str | None:
        """Where to go on after the event taken last: pass it as `since`, now or next week.

        While nothing waits to be taken it follows the feed, also past events that don't match.
        `None` until the gateway has accepted a subscription that had no cursor.
        """
        return None if self._taken is None else str(self._taken)

    @property
    def is_live(self) -> bool:
        """Whether everything from the log has come and new events come as they happen."""
        return self.feed.is_live

    @property
    def is_closed(self) -> bool:
        return self._is_over

    async def ready(self) -> None:
        """Return once the gateway has accepted the subscription.

        It may wait for room: not while another subscription of the same `Mesh` has a full queue.

        Raises:
            MeshError: it was refused: the channel, the cursor, the limit or the right to it.
            UnavailableError: it was closed before an answer came.
        """
        await self._is_accepted.wait()
        if self._error is not None:
            raise self._error
        if self.feed.cursor is None:
            raise UnavailableError("the subscription was closed before the gateway answered")

    def close(self) -> None:
        """End it: the gateway is told, what wasn't taken is dropped. Idempotent."""
        if not self._is_over:
            self.finish()
            self._on_close(self)

    def __aiter__(self) -> Subscription:
        self.is_iterated = True
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            MeshError: the gateway refused the subscription, or ended it.
        """
        self.is_iterated = True
        while (event := self.take_nowait()) is None:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return event

    def take_nowait(self) -> Event | None:
        """Return the next event if one has come, and move the cursor to it."""
        if not self._queue:
            return None
        queued = self._queue.popleft()
        self._queued_bytes -= queued.wire_bytes
        self._taken = queued.cursor
        if self._has_room():
            self._flow.resume(self)
        return queued.event

    # What the session says

    def accepted(self) -> None:
        """Note that the gateway accepted it."""
        self.moved()
        self._is_accepted.set()

    def deliver(self, event: Event, wire_bytes: int) -> None:
        """Keep *event*, which the feed has just taken, for the iterator."""
        assert self.feed.cursor is not None, "a feed that takes events has one"  # noqa: S101
        self._queue.append(_Queued(event, self.feed.cursor, wire_bytes))
        self._queued_bytes += wire_bytes
        if len(self._queue) >= HIGH_WATER_EVENTS or self._queued_bytes >= HIGH_WATER_BYTES:
            self._flow.pause(self)
        self._changed.set()

    def moved(self) -> None:
        """Follow the feed, unless events that come before its place still wait."""
        if not self._queue:
            self._taken = self.feed.cursor

    def finish(self, error: MeshError | None = None) -> None:
        """End it from this side: at once, or with *error* after what has come is taken."""
        self._is_over = True
        self._error = error
        self.feed.cut()
        if error is None:
            self._queue.clear()
            self._queued_bytes = 0
        self._flow.resume(self)
        self._changed.set()
        self._is_accepted.set()

    def _has_room(self) -> bool:
        return (
            len(self._queue) <= HIGH_WATER_EVENTS // 4
            and self._queued_bytes <= HIGH_WATER_BYTES // 4
        )
