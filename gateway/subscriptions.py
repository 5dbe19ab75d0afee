"""The subscriptions of one client: opened, brought to live, and followed there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from jarvis_mesh.gateway.access import LIMITS
from jarvis_mesh.gateway.catchup import Missing, belongs, unreadable
from jarvis_mesh.gateway.conflation import Conflation
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.cursor import Cursor, Since
from jarvis_mesh.schema.errors import (
    DuplicateSubscriptionError,
    LimitError,
    UnknownSubscriptionError,
)
from jarvis_mesh.schema.filters import Filter
from jarvis_mesh.schema.wire import Gap, Live, Subscribe, Subscribed

log = structlog.get_logger(__name__)


class Subscriptions:
    """What one client watches.

    Its live, unconflated feeds are served together: the client is a member of the one group
    whose interests are exactly theirs.

    Args:
        sender: Says things to the client.
        services: What all connections of the gateway share.
        tasks: Owns the replays.
        on_failure: Called when a replay failed by an error of ours.
    """

    def __init__(
        self,
        sender: Sender,
        services: Services,
        tasks: asyncio.TaskGroup,
        on_failure: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._services = services
        self._tasks = tasks
        self._on_failure = on_failure
        self._feeds: dict[str, Feed] = {}
        self._running: dict[Feed, asyncio.Task[None]] = {}
        self._conflations: dict[Feed, Conflation] = {}
        self._joined: frozenset[Interest] = frozenset()

    async def open(self, request: Subscribe, filters: Sequence[Filter], since: Since) -> None:
        """Open a subscription and say so.

        Raises:
            DuplicateSubscriptionError: there is one of that name.
            LimitError: there are too many, or "last" finds too much.
            UnavailableError, DeadlineError: NATS is away.
        """
        if request.sub in self._feeds:
            raise DuplicateSubscriptionError(f"there is a subscription {request.sub!r} already")
        if len(self._feeds) >= LIMITS.subscriptions:
            raise LimitError(f"a connection has at most {LIMITS.subscriptions} subscriptions")
        services = self._services
        feed = Feed(request.sub, filters, self, services.live, services.reader, services.clock)
        try:
            cursor = await feed.open(since)
        except BaseException:
            await feed.close()
            raise
        self._start(feed, request, cursor)

    async def close(self, sub: str) -> None:
        """Close a subscription: nothing is sent for it afterwards.

        Raises:
            UnknownSubscriptionError: there is none of that name.
        """
        if sub not in self._feeds:
            raise UnknownSubscriptionError(f"there is no subscription {sub!r}")
        await self._close(self._feeds[sub])

    async def close_all(self) -> None:
        """Close every subscription. Idempotent."""
        self.stop()
        for feed in tuple(self._feeds.values()):
            await self._close(feed)

    def stop(self) -> None:
        """Have no more events from this instant on."""
        self._leave_group()
        for task in self._running.values():
            task.cancel()

    def _start(self, feed: Feed, request: Subscribe, cursor: Cursor) -> None:
        self._feeds[feed.sub] = feed
        if request.conflate_ms is not None:
            self._conflations[feed] = Conflation(
                request.conflate_ms / 1000,
                self._services.clock,
                lambda event: self.feed_event(feed, event),
            )
        patterns = [each.pattern for each in feed.filters]
        self._sender.say(
            Subscribed(id=request.id, sub=feed.sub, filters=patterns, cursor=str(cursor))
        )
        if feed.is_caught_up:
            feed.go_live()
        self._running[feed] = self._tasks.create_task(self._run(feed))

    async def _run(self, feed: Feed) -> None:
        try:
            if not feed.is_caught_up:
                await feed.run()
            if (conflation := self._conflations.get(feed)) is not None:
                await conflation.run()
        except Exception:
            log.exception("a subscription failed")
            self._on_failure()

    async def _close(self, feed: Feed) -> None:
        del self._feeds[feed.sub]
        if (task := self._running.pop(feed, None)) is not None:
            task.cancel()
        if (conflation := self._conflations.pop(feed, None)) is not None:
            conflation.stop(feed.interests)
        feed.is_live = False
        self._join_group()
        await feed.close()

    # What the feeds say

    @property
    def is_drained(self) -> bool:
        """Whether the client has taken most of what was sent."""
        return self._sender.is_drained

    async def drained(self) -> None:
        """Return once it has."""
        await self._sender.drained()

    def feed_event(self, feed: Feed, event: StoredEvent) -> None:
        """Send an event for *feed* alone, or say that it can't be read."""
        if event.event is None:
            self.feed_missing(feed, unreadable(event, self._services.live.epoch))
        else:
            self._sender.say_event(event, feed.sub)

    def feed_missing(self, feed: Feed, missing: Missing) -> None:
        """Say what *feed* can't have."""
        self._sender.say(
            Gap(
                sub=feed.sub,
                from_=missing.from_seq,
                to=missing.to_seq,
                reason=missing.reason,
                cursor=str(missing.cursor),
            )
        )

    def feed_is_live(self, feed: Feed, cursor: Cursor, replayed: int | None) -> None:
        """Let *feed* have live events after *cursor*, from this instant on."""
        if replayed is not None:
            self._sender.say(Live(sub=feed.sub, cursor=str(cursor), replayed=replayed))
        if (conflation := self._conflations.get(feed)) is not None:
            conflation.start(feed.interests, cursor.seq)
        else:
            self._join_group()

    # What the group says

    def write_live(self, message: bytes) -> None:
        """Send an encoded live event."""
        self._sender.send(message)

    def skip_unreadable(self, event: StoredEvent) -> None:
        """Say to every live subscription that an event which matches can't be delivered."""
        for feed in self._grouped():
            if belongs(event, feed.filters):
                self.feed_event(feed, event)

    def _grouped(self) -> list[Feed]:
        return [
            feed for feed in self._feeds.values() if feed.is_live and feed not in self._conflations
        ]

    def _join_group(self) -> None:
        """Be a member of the group for exactly what the live subscriptions are for."""
        interests = frozenset(each for feed in self._grouped() for each in feed.interests)
        if interests == self._joined:
            return
        self._leave_group()
        if interests and not self._sender.ended.is_set():
            position = self._services.live.position
            self._services.fanout.join(self, interests, self._sender.form, position)
            self._joined = interests

    def _leave_group(self) -> None:
        self._services.fanout.leave(self, self._joined, self._sender.form)
        self._joined = frozenset()
