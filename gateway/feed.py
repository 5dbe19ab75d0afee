"""One subscription of one connection: from where it starts, through the log, to live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar, assert_never

import structlog

from jarvis_mesh.gateway.catchup import CatchUp, Missing
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.live_feed import LiveFeed
from jarvis_mesh.gateway.log_reader import LogReader, LogState, Page
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.cursor import AtTime, Cursor, SecondsAgo, Since, Start
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError
from jarvis_mesh.schema.filters import Filter

RETRY_AFTER: Final = 0.25
"""Seconds after which a replay that NATS interrupted tries again."""
_NO_LOG_YET: Final = datetime(1970, 1, 1, tzinfo=UTC)

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Client(Protocol):
    """The connection, as its feeds see it."""

    def feed_event(self, feed: Feed, event: StoredEvent) -> None:
        """Send an event for *feed* alone."""

    def feed_missing(self, feed: Feed, missing: Missing) -> None:
        """Say what *feed* can't have."""

    def feed_is_live(self, feed: Feed, cursor: Cursor, replayed: int | None) -> None:
        """Let *feed* have live events after *cursor*, from this instant on."""

    @property
    def is_drained(self) -> bool:
        """Whether the client has taken most of what was sent."""

    async def drained(self) -> None:
        """Return once it has."""


class Feed:
    """A subscription. `open` and `run` are its life; whoever runs it closes it."""

    def __init__(
        self,
        sub: str,
        filters: Sequence[Filter],
        client: Client,
        live: LiveFeed,
        reader: LogReader,
        clock: Clock,
    ) -> None:
        self.sub = sub
        self.filters = filters
        self.interests: Sequence[Interest] = ()
        self.is_live = False
        self._client = client
        self._live = live
        self._reader = reader
        self._clock = clock
        self._catch_up: CatchUp | None = None
        self._foreign: Missing | None = None
        self._newest: Page | None = None

    async def open(self, since: Since) -> Cursor:
        """Put its interests in force and return the cursor that it starts at.

        When it starts from now, it must `go_live` before anything else runs; otherwise `run`
        brings it there.

        Raises:
            UnavailableError, DeadlineError: NATS is away.
            LimitError: "last" over too many subjects.
        """
        self.interests = await self._live.acquire(self.filters)
        state = await self._live.barrier()
        if since is Start.NOW:
            return self._now()
        cursor = await self._resolve(since, state)
        self._catch_up = CatchUp(self.filters, cursor)
        if isinstance(since, Cursor):
            self._foreign = self._catch_up.begin(state)
        elif since is Start.LAST and cursor.seq:
            self._newest = await self._reader.newest(self.filters, 1, cursor.seq)
        return cursor

    @property
    def is_caught_up(self) -> bool:
        """Whether nothing lies between where it starts and the live feed."""
        return self._catch_up is None

    def go_live(self) -> None:
        """Have the live events from this instant on."""
        self.is_live = True
        replayed = None if self._catch_up is None else self._catch_up.replayed
        self._client.feed_is_live(self, self._now(), replayed)

    async def run(self) -> None:
        """Send what lies between the cursor and now, then go live."""
        catch_up = self._catch_up
        assert catch_up is not None, "a feed from now has nothing to catch up"  # noqa: S101
        if self._foreign is not None:
            self._client.feed_missing(self, self._foreign)
        if self._newest is not None:
            await self._send_newest(catch_up, self._newest)
        while True:
            position = self._live.position
            if catch_up.may_use_tail(self._live.floor(self.interests), position):
                page = self._live.tail_page(catch_up.cursor.seq)
                waited = await self._send(catch_up.take(page, position))
                # If it waited for the client, the live feed has moved on meanwhile.
                if not page.pending and not waited:
                    self.go_live()
                    return
            else:
                await self._read_log(catch_up)

    async def close(self) -> None:
        """Let go of its interests. Idempotent."""
        interests, self.interests = self.interests, ()
        await self._live.release(interests)

    async def _send_newest(self, catch_up: CatchUp, page: Page) -> None:
        """Send the newest event of each subject, of which *page* is the first."""
        head = catch_up.cursor.seq
        while True:
            await self._send(catch_up.newest(page.events))
            if not page.pending:
                return
            ask = partial(self._reader.newest, self.filters, page.events[-1].seq + 1, head)
            page = await self._persist(ask)

    async def _read_log(self, catch_up: CatchUp) -> None:
        """Send one page of the log."""
        position = self._live.position
        page = await self._persist(
            partial(self._reader.page, catch_up.read_filter, catch_up.cursor.seq + 1)
        )
        state = await self._persist(self._reader.state)
        self._live.observe(state)
        if state.epoch != catch_up.cursor.epoch:
            return  # what was read is of two logs; this connection is being ended
        await self._send(catch_up.take(page, position, state.first_seq))
        await self._persist(partial(self._live.reached, catch_up.cursor.seq))

    async def _persist(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer, asking until there is one: NATS may be away for a while."""
        while True:
            try:
                return await ask()
            except (UnavailableError, DeadlineError) as error:
                log.warning("a replay waits for the log", error=error.message)
                await self._clock.sleep(RETRY_AFTER)

    async def _send(self, items: Iterable[StoredEvent | Missing]) -> bool:
        """Send *items* at the client's pace; return whether it had to be waited for."""
        waited = False
        for item in items:
            if isinstance(item, Missing):
                self._client.feed_missing(self, item)
            else:
                self._client.feed_event(self, item)
            if not self._client.is_drained:
                waited = True
                await self._client.drained()
        return waited

    def _now(self) -> Cursor:
        return Cursor(self._live.epoch, self._live.position)

    async def _resolve(self, since: Since, state: LogState) -> Cursor:
        """Return the cursor that a start means in the log as it is."""
        match since:
            case Cursor():
                return since
            case Start.BEGINNING:
                return Cursor(state.epoch, state.first_seq - 1)
            case Start.NOW | Start.LAST:
                return self._now()
            case SecondsAgo():
                return await self._at(state, state.time - timedelta(seconds=since.seconds))
            case AtTime():
                return await self._at(state, since.time)
            case _:
                assert_never(since)

    async def _at(self, state: LogState, time: datetime) -> Cursor:
        if time >= state.time:
            return self._now()
        if time <= _NO_LOG_YET:  # the server counts nanoseconds in 64 bits, from 1678 on
            return Cursor(state.epoch, state.first_seq - 1)
        first = await self._reader.first_at(time)
        return self._now() if first is None else Cursor(state.epoch, first - 1)
