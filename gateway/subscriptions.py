"""The subscriptions of one client: opened, brought to live, and followed there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.catchup import Missing
from jarvis_mesh.gateway.conflation import Conflation
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.over_limit import BeyondError
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed, gap
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.schema.cursor import Since
from jarvis_mesh.schema.errors import (
    DuplicateSubscriptionError,
    ForbiddenError,
    UnknownSubscriptionError,
)
from jarvis_mesh.schema.filters import Filter
from jarvis_mesh.schema.wire import Error, Live, Subscribe, Subscribed


class Subscription:
    """One subscription, and where its own, tagged events go.

    Replays wait while the connection is behind, so that the client isn't slower for them.
    """

    __slots__ = (
        "_sender",
        "_services",
        "_shared",
        "conflation",
        "feed",
        "live_after",
        "sub",
        "task",
    )

    def __init__(
        self, sub: str, feed: Feed, shared: SharedFeed, sender: Sender, services: Services
    ) -> None:
        self.sub = sub
        self.feed = feed
        self.live_after = 0
        self.conflation: Conflation | None = None
        self.task: asyncio.Task[None] | None = None
        self._shared = shared
        self._sender = sender
        self._services = services

    @property
    def is_drained(self) -> bool:
        return self._sender.outbox.is_drained and self._shared.is_live

    async def drained(self) -> None:
        while not self.is_drained:
            await self._shared.caught_up()
            await self._sender.outbox.drained()

    def put(self, run: Run) -> None:
        self._sender.say_events(run, self.sub)

    def miss(self, missing: Missing) -> None:
        self._services.metrics.gap(missing.reason)
        self._sender.say(gap(self.sub, missing, missing.from_seq))

    async def replay(self) -> None:
        """Send what lies between the cursor and now, and say that it is live."""
        await self.feed.begin(self)
        await self.feed.pursue(self)
        cursor, replayed = self.feed.now(), self.feed.engine.replayed
        self._sender.say(Live(sub=self.sub, cursor=str(cursor), replayed=replayed))


class Subscriptions:
    """What one client watches.

    Args:
        sender: Says things to the client.
        services: What all connections of the gateway share.
        tasks: Owns the replays.
        visit: Counts them.
    """

    __slots__ = ("_open", "_sender", "_services", "_tasks", "_visit", "shared")

    def __init__(self, sender: Sender, services: Services, tasks: TaskScope, visit: Visit) -> None:
        self._visit = visit
        self.shared = SharedFeed(sender, services, tasks)
        self._sender = sender
        self._services = services
        self._tasks = tasks
        self._open: dict[str, Subscription] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, request: Subscribe, filters: Sequence[Filter], since: Since) -> None:
        """Open a subscription and say so.

        Raises:
            DuplicateSubscriptionError: there is one of that name.
            LimitError: there are too many, "last" finds too much, or it goes back too far.
            RateLimitedError: there are too many replays.
            UnavailableError, DeadlineError: NATS is away.
        """
        if request.sub in self._open:
            raise DuplicateSubscriptionError(f"there is a subscription {request.sub!r} already")
        most = self._services.settings.max_subscriptions
        if len(self._open) >= most:
            message = f"a connection has at most {most} subscriptions"
            raise BeyondError("subscriptions", message)
        feed = Feed(filters, self._services, self._visit)
        try:
            cursor = await feed.open(since)
        except BaseException:
            await feed.close()
            raise
        if self._sender.has_ended:  # meanwhile
            await feed.close()
            return
        patterns = [each.pattern for each in filters]
        self._sender.say(
            Subscribed(id=request.id, sub=request.sub, filters=patterns, cursor=str(cursor))
        )
        self._start(request, feed)

    async def close(self, sub: str) -> None:
        """Close a subscription: nothing is sent for it afterwards.

        Raises:
            UnknownSubscriptionError: there is none of that name.
        """
        if sub not in self._open:
            raise UnknownSubscriptionError(f"there is no subscription {sub!r}")
        await self._close(self._open[sub])

    async def narrow(self, grants: Grants) -> None:
        """End what *grants* don't cover: nothing of it is sent any more, and its client is told."""
        ended = [each for each in self._open.values() if not grants.covers(each.feed.filters)]
        for subscription in ended:
            self._detach(subscription)
            self._services.metrics.refuse("forbidden")
            error = ForbiddenError("your new token doesn't grant all of this subscription")
            self._sender.say(Error.of(error, sub=subscription.sub))
        for subscription in ended:
            await subscription.feed.close()

    async def close_all(self) -> None:
        """Close every subscription. Idempotent."""
        self.stop()
        for subscription in tuple(self._open.values()):
            await self._close(subscription)

    def stop(self) -> None:
        """Have no more events from this instant on."""
        self.shared.stop()
        for subscription in self._open.values():
            if subscription.task is not None:
                subscription.task.cancel()

    def fall_behind(self) -> None:
        """Let everything that is live go on from the log: the live feed has a hole."""
        self.shared.fall_behind()
        for subscription in self._open.values():
            if subscription.conflation is not None:
                subscription.conflation.fall_behind()

    def _start(self, request: Subscribe, feed: Feed) -> None:
        subscription = Subscription(request.sub, feed, self.shared, self._sender, self._services)
        self._open[request.sub] = subscription
        if request.conflate_ms is not None:
            interval = request.conflate_ms / 1000
            subscription.conflation = Conflation(interval, feed, subscription, self._services)
        is_live = feed.engine.is_live
        if is_live:
            self._go_live(subscription)
        if not is_live or subscription.conflation is not None:
            work, on_failure = self._run(subscription), self._sender.on_failure
            subscription.task = self._tasks.spawn(work, on_failure=on_failure)

    async def _run(self, subscription: Subscription) -> None:
        if not subscription.feed.engine.is_live:
            await subscription.replay()
            self._go_live(subscription)
        if subscription.conflation is not None:
            await subscription.conflation.run()

    def _go_live(self, subscription: Subscription) -> None:
        """Have what comes after the live feed's position; nothing else has run since then."""
        subscription.live_after = self._services.live.position
        if subscription.conflation is not None:
            subscription.conflation.start()
        else:
            self.shared.add(subscription)

    async def _close(self, subscription: Subscription) -> None:
        self._detach(subscription)
        await subscription.feed.close()

    def _detach(self, subscription: Subscription) -> None:
        """Send nothing for *subscription* from this instant on."""
        del self._open[subscription.sub]
        if subscription.task is not None:
            subscription.task.cancel()
            subscription.task = None  # what it raises refers to the subscription
        if subscription.conflation is not None:
            subscription.conflation.stop()
            subscription.conflation = None  # whose target the subscription is
        self.shared.remove(subscription)
