"""Whoever asks gets an answer that is newer than the question, and few runs serve many."""

from __future__ import annotations

import asyncio

from jarvis_mesh.gateway.rounds import Rounds
from jarvis_mesh.schema.errors import UnavailableError


async def test_who_asks_during_a_run_shares_the_next_one() -> None:
    started: list[asyncio.Event] = []
    gates: list[asyncio.Event] = []

    async def answer() -> int:
        number = len(started)
        started.append(asyncio.Event())
        gates.append(asyncio.Event())
        started[number].set()
        await gates[number].wait()
        return number

    rounds = Rounds(answer)
    async with asyncio.TaskGroup() as tasks:
        runner = tasks.create_task(rounds.run())
        first = tasks.create_task(rounds())
        while not started:
            await asyncio.wait({first}, timeout=0.001)
        late = [tasks.create_task(rounds()) for _ in range(5)]
        gates[0].set()
        assert await first == 0
        while len(started) < 2:
            await asyncio.wait(late, timeout=0.001)
        gates[1].set()
        assert [await task for task in late] == [1] * 5
        runner.cancel()
    assert len(started) == 2


async def test_an_error_reaches_all_who_share_the_run_and_the_next_run_works() -> None:
    outcomes = [UnavailableError("away"), None]

    async def answer() -> str:
        if (error := outcomes.pop(0)) is not None:
            raise error
        return "fine"

    rounds = Rounds(answer)
    async with asyncio.TaskGroup() as tasks:
        runner = tasks.create_task(rounds.run())
        results = await asyncio.gather(rounds(), rounds(), return_exceptions=True)
        assert [type(result) for result in results] == [UnavailableError] * 2
        assert await rounds() == "fine"
        runner.cancel()


async def test_one_who_gives_up_takes_nobody_along() -> None:
    gate = asyncio.Event()

    async def answer() -> str:
        await gate.wait()
        return "fine"

    rounds = Rounds(answer)
    async with asyncio.TaskGroup() as tasks:
        runner = tasks.create_task(rounds.run())
        leaving = tasks.create_task(rounds())
        staying = tasks.create_task(rounds())
        await asyncio.wait({leaving}, timeout=0.01)
        leaving.cancel()
        gate.set()
        assert await staying == "fine"
        runner.cancel()
