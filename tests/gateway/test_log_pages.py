"""Reads of the log are shared, rationed, and believed as far as they are proven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import cast

import pytest

from jarvis_mesh.gateway import page as page_module
from jarvis_mesh.gateway.log_pages import LogPages, PageCache
from jarvis_mesh.gateway.log_reader import PAGE_EVENTS, Batch, LogReader, LogState
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.page import Page
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema import Filter, parse_channel
from jarvis_mesh.schema.clock import SystemClock
from jarvis_mesh.schema.errors import UnavailableError
from tests.support.stored import stored

ALICE = parse_channel("user:alice")


class FakeReader:
    """A log whose peers may lag: `knows` has what the next ones to answer know."""

    def __init__(self, count: int) -> None:
        self.events = [
            stored(seq, user="alice" if seq % 100 == 0 else None) for seq in range(1, count + 1)
        ]
        self.first_seq = 1
        self.epoch = "1"
        self.knows: list[int] = []
        self.asked: list[tuple[str, int]] = []
        self.max_events = PAGE_EVENTS

    async def state(self) -> LogState:
        return LogState(self.epoch, self.first_seq, len(self.events), datetime.now(UTC))

    async def page(self, start_seq: int, count: int) -> Batch:
        self.asked.append(("page", start_seq))
        await asyncio.sleep(0)  # noqa: TID251 - others ask meanwhile
        known = self._known()
        start = max(start_seq, self.first_seq)
        found = known[start - 1 : start - 1 + min(count, self.max_events)]
        return Batch(tuple(found), pending=bool(found) and found[-1].seq < len(known))

    async def next_match(self, wanted: Filter, start_seq: int) -> StoredEvent | None:
        self.asked.append(("skip", start_seq))
        start = max(start_seq, self.first_seq)
        found = [each for each in self._known()[start - 1 :] if wanted.matches(each.tokens)]
        return found[0] if found else None

    def _known(self) -> list[StoredEvent]:
        return self.events[: self.knows.pop(0)] if self.knows else self.events


class Stage:
    def __init__(self, count: int) -> None:
        self.reader = FakeReader(count)
        self.states: list[LogState] = []
        self.metrics = Metrics()
        self.pages = LogPages(
            cast(LogReader, self.reader), SystemClock(), self.states.append, self.metrics
        )

    async def read(self, after_seq: int, exists_seq: int) -> list[int]:
        """Return the sequences of everything up to *exists_seq*."""
        found: list[int] = []
        while after_seq < exists_seq:
            page = await self.pages.page(after_seq, exists_seq)
            found += [event.seq for event in page.events if event.seq > after_seq]
            after_seq = page.upto_seq
        return found


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage(1_000)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.pages.run())
        yield made
        running.cancel()


async def test_a_range_is_read_once_however_many_want_it_from_wherever(stage: Stage) -> None:
    async with asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(stage.read(after, 1_000)) for after in range(0, 1000, 7)]
    for after, read in zip(range(0, 1000, 7), reads, strict=True):
        assert read.result() == list(range(after + 1, 1_001))
    assert len(stage.reader.asked) == 1_000 // PAGE_EVENTS + 1


async def test_a_page_at_the_end_of_the_log_is_continued_when_the_log_has_grown(
    stage: Stage,
) -> None:
    assert await stage.read(990, 1_000) == list(range(991, 1_001))
    stage.reader.events += [stored(seq) for seq in range(1_001, 1_021)]
    assert await stage.read(990, 1_020) == list(range(991, 1_021))


async def test_a_peer_that_lags_behind_the_leader_is_asked_again(stage: Stage) -> None:
    stage.reader.knows = [990, 990, 995, 995]
    assert await stage.read(990, 1_000) == list(range(991, 1_001))


async def test_a_page_cut_off_by_its_bytes_is_continued(stage: Stage) -> None:
    stage.reader.max_events = 10
    assert (await stage.read(55, 200))[:145] == list(range(56, 201))


async def test_what_has_expired_is_a_hole_in_the_page(stage: Stage) -> None:
    stage.reader.first_seq = 300
    page = await stage.pages.page(100, 1_000)
    assert list(page.holes(100)) == [(101, 299)]


async def test_pages_that_the_log_let_go_are_read_again(stage: Stage) -> None:
    await stage.read(0, 1_000)
    stage.reader.first_seq = 200
    stage.pages.drop_before(200)
    page = await stage.pages.page(0, 1_000)
    assert list(page.holes(0)) == [(1, 199)]


async def test_another_log_is_noticed_by_the_next_read_and_its_pages_are_not_served(
    stage: Stage,
) -> None:
    await stage.read(0, 128)
    stage.reader.epoch = "2"
    with pytest.raises(UnavailableError):
        await stage.pages.page(128, 1_000)
    assert stage.states[-1].epoch == "2"
    asked = len(stage.reader.asked)
    await stage.pages.page(0, 1_000)
    assert len(stage.reader.asked) == asked + 1


async def test_a_log_that_ends_before_what_was_seen_of_it_is_not_believed(stage: Stage) -> None:
    with pytest.raises(UnavailableError):
        await stage.pages.page(1_000, 1_005)


async def test_a_skip_finds_the_next_event_of_a_sparse_filter(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "NEAR", 100)
    monkeypatch.setattr("jarvis_mesh.gateway.log_pages.NEAR", 100)
    page = await stage.pages.skip([ALICE, parse_channel("user:bob")], 120, 1_000)
    assert [event.seq for event in page.events] == [200]
    assert (page.after_seq, page.upto_seq) == (120, 200)
    page = await stage.pages.skip([parse_channel("user:bob")], 120, 1_000)
    assert (page.events, page.upto_seq) == ((), 900)


async def test_a_skip_over_several_filters_proves_nothing_of_what_was_stored_while_it_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob is asked for after both events were stored, Alice before."""
    monkeypatch.setattr("jarvis_mesh.gateway.log_pages.NEAR", 50)
    stage.reader.events += [stored(1_001, user="carol"), stored(1_002, user="bob")]
    stage.reader.knows = [1_000, 1_002]
    carol, bob = parse_channel("user:carol"), parse_channel("user:bob")
    page = await stage.pages.skip([carol, bob], 120, 1_000)
    assert page.upto_seq < 1_001


def test_the_cache_lets_go_of_what_was_not_used_for_longest() -> None:
    events = [stored(seq) for seq in range(1, 11)]
    cache = PageCache(max_bytes=110_000)
    for start in range(0, 30, 10):
        cache.add(Page(start, start + 10, events))
    assert cache.find(0) is not None
    cache.add(Page(30, 40, events))
    assert cache.find(12) is None
    assert cache.find(5) is not None
    assert cache.find(39) is not None
