"""However many want to go on at once, each turn of the loop has room for others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jarvis_mesh.gateway.turns import BUDGET, FEW, MAX_AT_ONCE, Turns
from tests.support.clock import ManualClock


class WorkingClock(ManualClock):
    """One that goes on while something is done."""

    def work(self, seconds: float) -> None:
        self._now += seconds


class Work:
    """Work of many, each of which takes *seconds*."""

    def __init__(self, seconds: float) -> None:
        self.clock = WorkingClock()
        self.turns = Turns(self.clock)
        self.done: list[int] = []
        self._seconds = seconds

    async def do(self, number: int) -> None:
        await self.turns.mine()
        self.clock.work(self._seconds)
        self.done.append(number)

    async def most_in_a_turn_of_the_loop(self, count: int) -> list[int]:
        """Do it *count* times; return how many were done in each turn of the loop."""
        found = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(self.do(number))
            while len(self.done) < count:
                before = len(self.done)
                await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
                found.append(len(self.done) - before)
        return found


async def test_turns_come_in_the_order_of_asking() -> None:
    work = Work(BUDGET)
    await work.most_in_a_turn_of_the_loop(300)
    assert work.done == list(range(300))


async def test_dear_work_is_done_one_at_a_time_soon() -> None:
    counts = await Work(BUDGET * 2).most_in_a_turn_of_the_loop(300)
    assert max(counts) <= MAX_AT_ONCE
    assert max(counts[20:]) == 1


async def test_cheap_work_goes_on_together() -> None:
    counts = await Work(BUDGET / 1_000).most_in_a_turn_of_the_loop(1_000)
    assert max(counts) == MAX_AT_ONCE


async def test_who_has_left_takes_no_turn_from_others() -> None:
    work = Work(BUDGET)
    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(work.do(1))
        tasks.create_task(work.do(2))
        await asyncio.sleep(0)  # noqa: TID251 - both wait now
        gone.cancel()
    assert work.done == [2]
    await work.do(3)
    assert work.done == [2, 3]


async def test_few_users_with_many_connections_leave_the_loop_idle_in_between() -> None:
    """Whoever has most of them: between two turns there is time for what is live."""
    for users, is_busy in ((3, False), (FEW + 1, True)):
        clock = WorkingClock()
        turns = Turns(clock)
        rests = 0

        async def work(who: str, turns: Turns = turns, clock: WorkingClock = clock) -> None:
            for _ in range(3):
                await turns.mine(who)
                clock.work(0.001)

        def note(delay: float, callback: Callable[[], None]) -> None:
            nonlocal rests
            rests += 1
            asyncio.get_running_loop().call_soon(callback)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_later", note, raising=False)
            async with asyncio.TaskGroup() as tasks:
                for number in range(100):
                    tasks.create_task(work(f"u{number % users}"))
        assert (rests == 0) == is_busy
        assert not turns._of
