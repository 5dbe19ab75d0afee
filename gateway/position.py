"""The position: up to where this process has every live copy that an interest is for."""

from __future__ import annotations

import asyncio
import heapq


class Position:
    """A sequence that only rises, and those who wait for it."""

    def __init__(self) -> None:
        self.seq = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def move_to(self, seq: int) -> None:
        """Rise to *seq*; stay if it's higher already."""
        self.seq = max(self.seq, seq)
        while self._waiting and self._waiting[0][0] <= self.seq:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    def start_over(self) -> None:
        """Be of another log: those who wait go on waiting."""
        self.seq = 0

    async def reached(self, seq: int, *, within: float) -> None:
        """Return once it is at least *seq*.

        Raises:
            TimeoutError: not *within* seconds.
        """
        if self.seq >= seq:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (seq, id(future), future))
        async with asyncio.timeout(within):
            await future
