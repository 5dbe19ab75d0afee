"""What a connection gets untagged: its live subscriptions, served together as one feed.

While the client keeps up, the connection is a member of the group for exactly what they are
for, and events come from the live feed. When the client is too slow, or the live feed had a
hole, the connection leaves the group and keeps nothing but a cursor; once the client has taken
what was queued, the engine brings it to live again, the same way as any other feed.

Source: docs/protocol.md, "Slow readers".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from jarvis_mesh.gateway.catchup import Missing, belongs, unreadable
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.latch import Latch
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.filters import Filter
from jarvis_mesh.schema.wire import Gap, Lagging, Live

_NOTHING: Final[frozenset[Interest]] = frozenset()


class Part(Protocol):
    """A live subscription, as its connection serves it."""

    @property
    def sub(self) -> str | None:
        """Its name; `None` where there is only one."""

    @property
    def feed(self) -> Feed:
        """Its filters and interests."""

    @property
    def live_after(self) -> int:
        """It has untagged events above this sequence."""


class SharedFeed:
    """The live subscriptions of one connection.

    Args:
        sender: Says things to the client.
        services: What all connections of the gateway share.
        tasks: Owns the catching up.
    """

    __slots__ = (
        "_caught_up",
        "_feed",
        "_joined",
        "_live",
        "_parts",
        "_sender",
        "_services",
        "_tasks",
    )

    def __init__(self, sender: Sender, services: Services, tasks: TaskScope) -> None:
        self._sender = sender
        self._services = services
        self._tasks = tasks
        self._live = services.live
        self._feed = Feed((), services)  # its interests are those of the parts, who close them
        self._feed.engine.join()
        self._parts: dict[Part, None] = {}
        self._joined: frozenset[Interest] = _NOTHING
        self._caught_up = Latch(is_open=True)

    @property
    def is_live(self) -> bool:
        """Whether events come from the live feed, not from the log."""
        return self._caught_up.is_open

    async def caught_up(self) -> None:
        """Return once events come from the live feed; at once if so."""
        await self._caught_up.wait()

    def settle(self) -> None:
        """Have written what the group has collected; the client may be behind afterwards.

        Before anything is said of where the client is, or done about it.
        """
        if self._sender.group is not None:
            self._sender.group.flush()

    def add(self, part: Part) -> None:
        """Serve *part* too, with what comes after its `live_after`."""
        self.settle()
        self._parts[part] = None
        self._follow_parts()

    def remove(self, part: Part) -> None:
        """Serve *part* no more. Idempotent."""
        if part in self._parts:
            self.settle()
            del self._parts[part]
            self._follow_parts()

    def stop(self) -> None:
        """Have no more events from this instant on."""
        self.settle()
        self._parts.clear()
        self._follow_parts()

    def start(self, cursor: Cursor) -> None:
        """Be behind from the beginning: what follows *cursor* comes from the log."""
        self._caught_up.close()
        self._leave_group()
        self._feed.engine.filters = self._filters()
        self._feed.engine.fall_behind(cursor)

    def fall_behind(self) -> None:
        """Leave the live feed, whose position is where to go on from."""
        self.settle()
        self.fall_behind_at(self._live.position)

    async def catch_up(self) -> int:
        """Bring a connection that is behind to live; return how many events that took."""
        await self._feed.pursue(self)
        self._caught_up.open()
        self._follow_parts()
        return self._feed.engine.replayed

    async def _recover(self) -> None:
        await self._sender.outbox.drained()
        if self._sender.has_ended:
            return
        behind = self._live.position - self._feed.engine.cursor.seq
        self._sender.say(Lagging(behind=max(behind, 0)))
        await self.catch_up()
        self._sender.say(Live(cursor=str(self._feed.now())))

    # As a group sees it

    def fall_behind_at(self, seq: int) -> None:
        if self.is_live and self._parts:
            self.start(Cursor(self._live.epoch, seq))
            self._services.metrics.lagged.inc()
            self._tasks.spawn(self._recover(), on_failure=self._sender.on_failure)

    def skip_unreadable(self, event: StoredEvent) -> None:
        """Say to every part which it is for that an event can't be delivered."""
        if self._sender.outbox.is_full:
            self.fall_behind()
        else:
            self.miss(unreadable(event, self._live.epoch))

    # As the engine sees it

    @property
    def is_drained(self) -> bool:
        return self._sender.outbox.is_drained

    async def drained(self) -> None:
        await self._sender.outbox.drained()

    def put(self, run: Run) -> None:
        self._sender.say_events(run)

    def miss(self, missing: Missing) -> None:
        for part in self._lacking(missing):
            from_seq = max(missing.from_seq, part.live_after + 1)
            if missing.to_seq is None or from_seq <= missing.to_seq:
                self._services.metrics.gap(missing.reason)
                self._sender.say(gap(part.sub, missing, from_seq))

    def _lacking(self, missing: Missing) -> Iterator[Part]:
        for part in self._parts:
            if missing.event is None or belongs(missing.event, part.feed.filters):
                yield part

    def _follow_parts(self) -> None:
        """Be a member of the group for exactly the parts; behind, catch up for exactly them."""
        interests = dict.fromkeys(each for part in self._parts for each in part.feed.interests)
        self._feed.interests = tuple(interests)
        if not self.is_live:
            self._feed.engine.filters = self._filters()
        elif interests.keys() != self._joined:
            self._leave_group()
            self._join_group(frozenset(interests))

    def _filters(self) -> Sequence[Filter]:
        filters = [each for part in self._parts for each in part.feed.filters]
        return tuple(dict.fromkeys(filters))

    def _join_group(self, interests: frozenset[Interest]) -> None:
        if interests and not self._sender.has_ended:
            sender, fanout, position = self._sender, self._services.fanout, self._live.position
            sender.group = fanout.join(self, sender.outbox, interests, sender.form, position)
            self._joined = interests

    def _leave_group(self) -> None:
        self._services.fanout.leave(self._sender.outbox, self._joined, self._sender.form)
        self._sender.group = None
        self._joined = _NOTHING


def gap(sub: str | None, missing: Missing, from_seq: int) -> Gap:
    """Return the message that tells of *missing*."""
    return Gap(
        sub=sub,
        from_=from_seq,
        to=missing.to_seq,
        reason=missing.reason,
        cursor=str(missing.cursor),
    )
