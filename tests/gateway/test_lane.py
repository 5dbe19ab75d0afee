"""A lane does one job at a time, shares equal ones, and rests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jarvis_mesh.gateway.lane import Lane
from jarvis_mesh.schema.errors import UnavailableError
from tests.support.clock import ManualClock


class Work:
    """Jobs that end when a test says so."""

    def __init__(self, clock: ManualClock) -> None:
        self.lane: Lane[str] = Lane(clock, rest=4)
        self.begun: list[str] = []
        self.clock = clock

    async def do(self, key: str, seconds: float = 1.0) -> str:
        async def work() -> str:
            self.begun.append(key)
            await self.clock.sleep(seconds)
            if key == "bad":
                raise UnavailableError("away")
            return key.upper()

        return await self.lane.do(key, work)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    made = Work(ManualClock())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.lane.run())
        yield made
        running.cancel()


async def test_jobs_are_done_one_by_one_with_rests_in_between(work: Work) -> None:
    async with asyncio.TaskGroup() as tasks:
        first, second = (tasks.create_task(work.do(key)) for key in "ab")
        await work.clock.advance(1)
        assert first.done()
        await work.clock.advance(3.9)
        assert work.begun == ["a"]
        await work.clock.advance(1.2)
        assert second.result() == "B"


async def test_those_who_want_the_same_share_it_but_not_what_has_begun(work: Work) -> None:
    async with asyncio.TaskGroup() as tasks:
        one = tasks.create_task(work.do("a"))
        await work.clock.advance(0.5)
        others = [tasks.create_task(work.do("a")) for _ in range(3)]
        await work.clock.advance(0.5)
        assert one.result() == "A"
        await work.clock.advance(5)
        assert [each.result() for each in others] == ["A"] * 3
    assert work.begun == ["a", "a"]


async def test_an_error_goes_to_who_asked_and_the_lane_goes_on(work: Work) -> None:
    async def fails() -> None:
        with pytest.raises(UnavailableError):
            await work.do("bad")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fails())
        good = tasks.create_task(work.do("good"))
        await work.clock.advance(10)
    assert good.result() == "GOOD"


async def test_a_job_that_nobody_waits_for_any_more_is_left_out(work: Work) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work.do("a"))
        given_up = tasks.create_task(work.do("b"))
        await work.clock.advance(0.5)
        given_up.cancel()
        await work.clock.advance(10)
    assert work.begun == ["a"]
