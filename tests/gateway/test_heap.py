"""What was freed goes back to the system."""

from __future__ import annotations

import asyncio

import psutil

from jarvis_mesh.gateway import heap
from tests.support.clock import ManualClock

MIB = 1024 * 1024


async def test_memory_that_was_used_for_a_while_is_given_back() -> None:
    heap.keep_large_blocks_apart()
    clock = ManualClock()
    async with asyncio.TaskGroup() as tasks:
        tidying = tasks.create_task(heap.give_back(clock))
        blocks = [bytes(100_000) for _ in range(1_000)]
        last = bytes(100_000)  # stays, above them
        del blocks
        await clock.advance(heap.INTERVAL + 1)
        before = psutil.Process().memory_info().rss
        again = [bytes(100_000) for _ in range(1_000)]
        assert psutil.Process().memory_info().rss - before > 50 * MIB, "they came from the system"
        tidying.cancel()
    assert len(again) == 1_000
    assert last
