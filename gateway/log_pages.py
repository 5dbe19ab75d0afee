"""Reading the log for all who catch up: shared, bounded, and at a price the publishers can bear.

Pages lie on a fixed grid and a bounded cache keeps those read last, so a thousand feeds that
come back at once cost as many reads as the range has pages, whatever their filters are. Two
lanes do the reading, one job at a time each:

    near    within 10,000 sequences of the log's end: pages only
    far     further back: pages and skips; after each the lane rests four times as long as it
            took, so a user who replays everything in a loop leaves publishers alone

A *skip* asks for the next event that passes a filter, and yields a sparse page: with that one
event, and the range before it in which there is none.

A page is believed only as far as it can be proven. Direct Get is answered by any peer of a
cluster, which may lag behind the stream's leader; but what a peer has is the log up to some
sequence, without holes. So a page proves everything up to its last event, and a page that ends
before the sequence that the caller knows to exist is asked for again.

Source: docs/protocol.md, "Promises"; NATS ADR-31 (Direct Get).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from jarvis_mesh.gateway.lane import Lane
from jarvis_mesh.gateway.log_reader import PAGE_EVENTS, Batch, LogReader, LogState
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.page import NEAR, Page, is_far
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import UnavailableError
from jarvis_mesh.schema.filters import Filter

FAR_REST: Final = 4.0
MAX_CACHED_BYTES: Final = 32 * 1024 * 1024
_EVENT_OVERHEAD: Final = 3 * 1024
"""What an event takes beside its body once it was opened and encoded, measured."""
OPENED_AT_ONCE: Final = 8
_ASK_AGAIN_AFTER: Final = 0.05
"""Seconds until a peer that lags is asked again; another one may answer then."""


class PageCache:
    """The pages that were read last, found by a sequence within them."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pages: OrderedDict[int, Page] = OrderedDict()
        self._starts: list[int] = []

    def find(self, after_seq: int) -> Page | None:
        """Return the page that goes on after *after_seq*."""
        page = self._before(after_seq)
        if page is None or page.upto_seq <= after_seq:
            return None
        self._pages.move_to_end(page.after_seq)
        return page

    def start_for(self, after_seq: int) -> int:
        """Return where to read from when nothing is found: the grid's line, or a page's end."""
        line = after_seq - after_seq % PAGE_EVENTS
        page = self._before(after_seq)
        return line if page is None else max(line, page.upto_seq)

    def add(self, page: Page) -> None:
        """Keep *page*, and let go of those that nobody has used for longest."""
        if page.after_seq in self._pages:
            self._remove(page.after_seq)
        self._pages[page.after_seq] = page
        insort(self._starts, page.after_seq)
        self._bytes += _size(page)
        while self._bytes > self._max_bytes and len(self._pages) > 1:
            self._remove(next(iter(self._pages)))

    def drop_before(self, first_seq: int) -> None:
        """Forget pages of which the log no longer has everything."""
        while self._starts and self._starts[0] + 1 < first_seq:
            self._remove(self._starts[0])

    def clear(self) -> None:
        """Forget all pages: they are of another log."""
        self._pages.clear()
        self._starts.clear()
        self._bytes = 0

    def _before(self, after_seq: int) -> Page | None:
        place = bisect_right(self._starts, after_seq)
        return self._pages[self._starts[place - 1]] if place else None

    def _remove(self, start: int) -> None:
        self._bytes -= _size(self._pages.pop(start))
        del self._starts[bisect_right(self._starts, start) - 1]


def _size(page: Page) -> int:
    return page.size_bytes + _EVENT_OVERHEAD * (1 + len(page.events))


class LogPages:
    """The pages of the log.

    Args:
        on_state: Is told the log's state after every read.
    """

    def __init__(
        self,
        reader: LogReader,
        clock: Clock,
        on_state: Callable[[LogState], None],
        metrics: Metrics,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._on_state = on_state
        self._cache = PageCache()
        self._near: Lane[Page] = Lane(clock)
        self._far: Lane[Page] = Lane(clock, rest=FAR_REST)
        self._epoch = ""
        self._metrics = metrics

    def drop_before(self, first_seq: int) -> None:
        """Serve nothing any more that the log, which begins at *first_seq*, has let go."""
        self._cache.drop_before(first_seq)

    def forget(self) -> None:
        """Forget what was read: it is of another log."""
        self._cache.clear()
        self._epoch = ""

    async def run(self) -> None:
        """Read what is asked for, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._near.run())
            tasks.create_task(self._far.run())

    async def page(self, after_seq: int, exists_seq: int) -> Page:
        """Return a page that goes on after *after_seq*.

        Args:
            after_seq: Below *exists_seq*.
            exists_seq: The newest sequence that the log is known to have had.

        Raises:
            UnavailableError, DeadlineError: the log can't be read now.
        """
        while True:
            page = self._cache.find(after_seq)
            if page is None:
                lane = self._far if is_far(after_seq, exists_seq) else self._near
                key = after_seq // PAGE_EVENTS
                page = await lane.do(key, partial(self._read, after_seq, exists_seq))
            if page.after_seq <= after_seq < page.upto_seq:
                return page

    async def skip(self, filters: Sequence[Filter], after_seq: int, exists_seq: int) -> Page:
        """Return a sparse page that ends with the next event that passes any of *filters*.

        Without one, it ends where reads aren't far any more. Arguments and errors are those of
        `page`; *after_seq* must be far.
        """
        find = partial(self._find, filters, after_seq, exists_seq)
        return await self._far.do((tuple(filters), after_seq), find)

    async def _read(self, after_seq: int, exists_seq: int) -> Page:
        if (page := self._cache.find(after_seq)) is not None:
            return page  # read while this waited for its turn
        start = self._cache.start_for(after_seq)
        count = PAGE_EVENTS - start % PAGE_EVENTS
        while True:
            batch = await self._reader.page(start + 1, count)
            await self._open(batch)
            page = _page(start, batch, await self._observe(exists_seq))
            if page.upto_seq > start:
                self._cache.add(page)
                return page
            await self._clock.sleep(_ASK_AGAIN_AFTER)

    async def _open(self, batch: Batch) -> None:
        """Open the events, a few at a time: all of a page take 5 ms."""
        for number, event in enumerate(batch.events, start=1):
            if not event.is_hidden and event.is_readable and number % OPENED_AT_ONCE == 0:
                await self._clock.sleep(0)

    async def _find(self, filters: Sequence[Filter], after_seq: int, exists_seq: int) -> Page:
        matches = [await self._reader.next_match(each, after_seq + 1) for each in filters]
        state = await self._observe(exists_seq)
        # The filters are asked one after the other, maybe of different peers: near the log's
        # end one may be found what was stored after another one's answer. There pages are read.
        end = exists_seq - NEAR
        within = (event for event in matches if event and event.seq <= end)
        found = min(within, key=lambda each: each.seq, default=None)
        upto_seq = end if found is None else found.seq
        return Page(
            after_seq,
            max(upto_seq, state.first_seq - 1),
            () if found is None else (found,),
            first_seq=state.first_seq,
        )

    async def _observe(self, exists_seq: int) -> LogState:
        """Return the state after a read, which doesn't count if the log isn't the one it was."""
        self._metrics.log_reads.inc()
        state = await self._reader.state()
        self._on_state(state)
        if state.epoch != self._epoch:
            epoch_before = self._epoch
            self.forget()
            self._epoch = state.epoch
            if epoch_before:
                raise UnavailableError("another log is in place of the one that was read")
        if state.last_seq < exists_seq:
            raise UnavailableError("the log ends before what was read of it already")
        return state


def _page(start: int, batch: Batch, state: LogState) -> Page:
    end = batch.events[-1].seq if batch.events else start
    return Page(start, max(end, state.first_seq - 1), batch.events, first_seq=state.first_seq)
