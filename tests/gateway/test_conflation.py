"""A conflated subscription gets the newest event of each subject, in ascending sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from jarvis_mesh.gateway import conflation as conflation_module
from jarvis_mesh.gateway.catchup import CatchUp, Missing
from jarvis_mesh.gateway.conflation import MAX_SUBJECTS, Conflation
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.schema import Cursor, parse_channel
from tests.support.clock import ManualClock
from tests.support.stored import stored, unreadable

EVERYTHING = parse_channel("all")


class Client:
    """Takes what is flushed, or doesn't."""

    def __init__(self) -> None:
        self.is_drained = True
        self.seqs: list[int] = []
        self.missing: list[int] = []

    async def drained(self) -> None:
        assert self.is_drained

    def put(self, run: Run) -> None:
        self.seqs += [event.seq for event in run]

    def miss(self, missing: Missing) -> None:
        self.missing.append(missing.from_seq)


class Stage:
    """A conflation whose feed, live feed and clock a test plays."""

    def __init__(self, interval: float = 0.1) -> None:
        self.clock = ManualClock()
        self.client = Client()
        self.interest = Interest(EVERYTHING)
        self.live = SimpleNamespace(position=0, epoch="1")
        self.engine = CatchUp([EVERYTHING], Cursor("1", 0))
        self.engine.join()
        self.log: list[int] = []
        feed = SimpleNamespace(
            engine=self.engine,
            interests=[self.interest],
            now=lambda: Cursor("1", self.live.position),
            pursue=self._pursue,
        )
        services = SimpleNamespace(live=self.live, clock=self.clock)
        self.conflation = Conflation(
            interval, cast(Feed, feed), self.client, cast(Services, services)
        )
        self.conflation.start()

    def deliver(self, seq: int, entity: str) -> None:
        event = stored(seq, entity=entity)
        self.log.append(seq)
        for sink in tuple(self.interest.sinks):
            sink.deliver(event)
        self.live.position = seq

    async def _pursue(self, target: Conflation) -> None:
        """Read the rest of the log, and join."""
        await target.drained()
        for seq in [each for each in self.log if each > self.engine.cursor.seq]:
            target.put((stored(seq, entity=str(seq % 3)),))
        self.engine.join()


@contextmanager
def running(stage: Stage, tasks: asyncio.TaskGroup) -> Iterator[None]:
    task = tasks.create_task(stage.conflation.run())
    yield
    task.cancel()


async def test_each_interval_sends_the_newest_of_each_subject() -> None:
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        with running(stage, tasks):
            for seq, entity in enumerate("abacab", start=1):
                stage.deliver(seq, entity)
            await stage.clock.advance(0)
            assert stage.client.seqs == []
            await stage.clock.advance(0.1)
            assert stage.client.seqs == [4, 5, 6]
            await stage.clock.advance(0.5)
            assert stage.client.seqs == [4, 5, 6]


async def test_many_subjects_are_flushed_early() -> None:
    stage = Stage()
    for seq in range(1, MAX_SUBJECTS + 2):
        stage.deliver(seq, str(seq))
    assert stage.client.seqs == list(range(1, MAX_SUBJECTS + 1))


async def test_an_event_that_cannot_be_read_is_a_gap() -> None:
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        with running(stage, tasks):
            stage.conflation.deliver(unreadable(1, "agent.created._.x._._._"))
            await stage.clock.advance(0.1)
    assert stage.client.missing == [1]


async def test_what_is_held_comes_before_a_gap_that_lies_after_it() -> None:
    stage = Stage()
    stage.deliver(1, "a")
    stage.deliver(2, "b")
    stage.conflation.miss(Missing(3, 5, "expired", Cursor("1", 5)))
    assert (stage.client.seqs, stage.client.missing) == ([1, 2], [3])


async def test_a_client_that_takes_nothing_costs_a_bound_and_gets_the_newest_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conflation_module, "MAX_SUBJECTS", 4)
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        with running(stage, tasks):
            stage.deliver(1, "1")
            await stage.clock.advance(0.1)
            stage.client.is_drained = False
            for seq in range(2, 20):
                stage.deliver(seq, str(seq))
            assert stage.interest.sinks == set()
            assert stage.client.seqs == [1]
            stage.client.is_drained = True
            await stage.clock.advance(0.2)
            assert stage.client.seqs == [1, 17, 18, 19]
            stage.deliver(20, "a")
            await stage.clock.advance(0.1)
            assert stage.client.seqs == [1, 17, 18, 19, 20]


async def test_after_a_hole_it_goes_on_from_the_log() -> None:
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        with running(stage, tasks):
            stage.deliver(1, "a")
            stage.conflation.fall_behind()
            assert stage.interest.sinks == set()
            stage.log.append(2)
            stage.live.position = 2
            await stage.clock.advance(0.2)
            assert stage.client.seqs == [1, 2]


async def test_it_is_a_sink_only_between_start_and_stop() -> None:
    stage = Stage()
    assert stage.interest.sinks == {stage.conflation}
    stage.conflation.stop()
    assert stage.interest.sinks == set()
