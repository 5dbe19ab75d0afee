"""Turns: who has much to say or to read goes on bit by bit, and few at a time.

A turn of the event loop runs all that is ready. With hundreds of clients that send without end, or
replay, that is as many pieces of work, each short, together tens of milliseconds; and meanwhile the
live feed waits. Here they queue instead: in each turn of the loop only as many go on as take a
quarter of a millisecond together. It isn't less that is done, live events only come in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from jarvis_mesh.schema.clock import Clock

BUDGET: Final = 0.00025
"""Seconds for all that go on in one turn of the loop."""
MAX_AT_ONCE: Final = 64


class Turns:
    """Gives turns, first come, first served."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_running = False
        self._began = 0.0
        self._at_once = MAX_AT_ONCE

    async def mine(self) -> None:
        """Return when it is the caller's turn: to do what takes a millisecond at most."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._is_running:
            self._is_running = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        """Let some go on in the next turn of the loop, and be back right after them."""
        loop = asyncio.get_running_loop()
        loop.call_soon(self._begin)
        for _ in range(min(self._at_once, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled: its client has gone
                turn.set_result(None)
        loop.call_soon(self._end)

    def _begin(self) -> None:
        self._began = self._clock.monotonic()

    def _end(self) -> None:
        took = self._clock.monotonic() - self._began
        if took > BUDGET:
            self._at_once = max(1, self._at_once // 2)
        elif took < BUDGET / 2:
            self._at_once = min(MAX_AT_ONCE, self._at_once * 2)
        if self._waiting:
            self._give()
        else:
            self._is_running = False
