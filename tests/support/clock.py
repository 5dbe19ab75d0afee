"""A clock that a test turns by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class ManualClock:
    """Stands still until `advance`; then wakes the sleepers whose time has come, in order."""

    def __init__(self, time_ms: int = 1_800_000_000_000) -> None:
        self._start_ms = time_ms
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tie = itertools.count()

    def time_ms(self) -> int:
        return self._start_ms + int(self._now * 1000)

    def monotonic(self) -> float:
        return self._now

    @property
    def sleepers(self) -> int:
        """How many wait for their time."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    def busy(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 - this is the clock
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._tie), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and everybody who wakes meanwhile run."""
        end = self._now + seconds
        await _yield()  # to those who are about to sleep
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await _yield()
        self._now = end


async def _yield() -> None:
    for _ in range(10):
        await asyncio.sleep(0)  # noqa: TID251 - yields, waits for nothing
