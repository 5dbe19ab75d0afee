"""A feed with its sources: opened where it starts, and brought to live by the engine's steps.

The engine (catchup.py) decides; here its steps are carried out. What is found goes to a
*target* at the pace at which that drains, so a feed holds nothing but its cursor while its
client is slow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar, assert_never

import structlog

from jarvis_mesh.gateway.catchup import CatchUp, Missing, Step
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.limits import Replay, Visit
from jarvis_mesh.gateway.log_reader import Batch, LogState
from jarvis_mesh.gateway.page import Page, Run
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.schema.cursor import AtTime, Cursor, SecondsAgo, Since, Start
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError
from jarvis_mesh.schema.filters import Filter

RETRY_AFTER: Final = 0.25
"""Seconds after which a step that NATS interrupted is tried again."""
HAND_OVER: Final = 0.0005
"""Seconds for what is given to a client at once: then others have their turn."""
LEADER_LAG: Final = 2.0
"""Seconds that a log may end before a cursor until that counts as a reset: a new leader of the
stream answers before it has applied all that was acknowledged."""
_NO_LOG_YET: Final = datetime(1970, 1, 1, tzinfo=UTC)

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Target(Protocol):
    """Where a feed's events go."""

    @property
    def is_drained(self) -> bool:
        """Whether it takes more now."""

    async def drained(self) -> None:
        """Return once it takes more."""

    def put(self, run: Run) -> None:
        """Take events."""

    def miss(self, missing: Missing) -> None:
        """Take note of what the feed can't have."""


class Feed:
    """A place in the log plus filters. Whoever opened it closes it."""

    def __init__(
        self, filters: Sequence[Filter], services: Services, visit: Visit | None = None
    ) -> None:
        self.filters = filters
        self.interests: Sequence[Interest] = ()
        self.engine = CatchUp(filters, Cursor("", 0))
        self._services = services
        self._live = services.live
        self._foreign: Missing | None = None
        self._newest: Batch | None = None
        self._visit = visit
        self._replay: Replay | None = None

    async def open(self, since: Since) -> Cursor:
        """Put its interests in force and return the cursor that it starts at.

        One from now is live: it must be given to a group before anything else runs. Otherwise
        `pursue` brings it there.

        Raises:
            UnavailableError, DeadlineError: NATS is away.
            LimitError: "last" over too many subjects, or further back than is allowed.
            RateLimitedError: the client has too many replays already.
        """
        if since is not Start.NOW and self._visit is not None:
            self._replay = self._visit.begin_replay()
        self.interests = await self._live.acquire(self.filters)
        state = await self._live.barrier()
        if isinstance(since, Cursor):
            state = await self._state_with(since, state)
        if since is Start.NOW:
            self.engine.fall_behind(self.now())
            self.engine.join()
            return self.engine.cursor
        cursor = await self._resolve(since, state)
        oldest = await self._services.replay_age.oldest(cursor, state)
        self.engine.fall_behind(cursor)
        if isinstance(since, Cursor):
            self._foreign = self.engine.begin(state, oldest)
        elif since is Start.LAST and cursor.seq:
            self._newest = await self._services.reader.newest(self.filters, oldest, cursor.seq)
        return cursor

    async def begin(self, target: Target) -> None:
        """Say what `open` found that comes before the log: another log's gap, the newest."""
        await target.drained()
        foreign, self._foreign = self._foreign, None
        if foreign is not None:
            target.miss(foreign)
        batch, self._newest = self._newest, None
        head = self.engine.cursor.seq
        while batch is not None:
            for item in self.engine.newest(batch.events):
                await target.drained()
                _give(target, item)
            if not batch.pending:
                return
            after = batch.events[-1].seq + 1
            reader = self._services.reader
            batch = await self._persist(partial(reader.newest, self.filters, after, head))

    async def pursue(self, target: Target) -> None:
        """Give *target* all that follows the cursor; return when the feed is to join, now."""
        engine, live, turns = self.engine, self._live, self._services.turns
        who = None if self._visit is None else self._visit.who
        while True:
            await target.drained()
            await turns.mine(who)  # what comes next may come from memory: let others run
            match engine.next_step(live.floor(self.interests), live.position):
                case Step.BARRIER:
                    await self._persist(live.barrier)
                case Step.WAIT:
                    await self._persist(partial(live.reached, engine.cursor.seq))
                case Step.TAIL:
                    self._hand_over(live.tail_page(engine.cursor.seq), target)
                case Step.PAGE:
                    page = await self._page()
                    await turns.mine(who)  # many may have waited for it
                    self._hand_over(page, target)
                case Step.SKIP:
                    self._hand_over(await self._skip(), target)
                case Step.JOIN:
                    engine.join()
                    self.end_replay()
                    return
                case step:
                    assert_never(step)

    def now(self) -> Cursor:
        """Return the cursor of the live feed's position."""
        return Cursor(self._live.epoch, self._live.position)

    async def close(self) -> None:
        """Let go of its interests. Idempotent."""
        self.end_replay()
        interests, self.interests = self.interests, ()
        await self._live.release(interests)

    def end_replay(self) -> None:
        """Count no longer among its client's replays. Idempotent."""
        if self._replay is not None:
            self._replay.end()
            self._replay = None

    async def _page(self) -> Page:
        pages, exists = self._services.pages, self._live.position
        return await self._persist(partial(pages.page, self.engine.cursor.seq, exists))

    async def _skip(self) -> Page:
        engine, pages, exists = self.engine, self._services.pages, self._live.position
        ask = partial(pages.skip, engine.skip_filters, engine.cursor.seq, exists)
        return await self._persist(ask)

    def _hand_over(self, page: Page, target: Target) -> None:
        """Give *target* what it takes of *page* without waiting; the cursor says how much.

        It may take nothing any more: since it was asked, the page has been read.
        """
        if not target.is_drained:
            return
        if self.engine.cursor.epoch != self._live.epoch:
            return  # the page is of another log: this connection is being ended
        clock = self._services.clock
        began = clock.monotonic()
        for item in self.engine.take(page, self._live.position):
            _give(target, item)
            if clock.monotonic() - began > HAND_OVER:
                return
            if not target.is_drained:
                return

    async def _persist(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer, asking until there is one: NATS may be away for a while."""
        while True:
            try:
                return await ask()
            except (UnavailableError, DeadlineError) as error:
                log.warning("a feed waits for the log", error=error.message)
                await self._services.clock.sleep(RETRY_AFTER)

    async def _state_with(self, cursor: Cursor, state: LogState) -> LogState:
        """Return a state of the log that has *cursor*, if there comes one soon."""
        clock = self._services.clock
        deadline = clock.monotonic() + LEADER_LAG
        while (
            cursor.epoch == state.epoch
            and cursor.seq > state.last_seq
            and clock.monotonic() < deadline
        ):
            await clock.sleep(RETRY_AFTER)
            state = await self._live.barrier()
        return state

    async def _resolve(self, since: Since, state: LogState) -> Cursor:
        """Return the cursor that a start means in the log as it is."""
        match since:
            case Cursor():
                return since
            case Start.BEGINNING:
                return Cursor(state.epoch, state.first_seq - 1)
            case Start.NOW | Start.LAST:
                return self.now()
            case SecondsAgo():
                return await self._at(state, state.time - timedelta(seconds=since.seconds))
            case AtTime():
                return await self._at(state, since.time)
            case _:
                assert_never(since)

    async def _at(self, state: LogState, time: datetime) -> Cursor:
        if time >= state.time:
            return self.now()
        if time <= _NO_LOG_YET:  # the server counts nanoseconds in 64 bits, from 1678 on
            return Cursor(state.epoch, state.first_seq - 1)
        first = await self._services.reader.first_at(time)
        return self.now() if first is None else Cursor(state.epoch, first - 1)


def _give(target: Target, item: Run | Missing) -> None:
    if isinstance(item, Missing):
        target.miss(item)
    else:
        target.put(item)
