"""Turns: who has much to say or to read goes on bit by bit, and few at a time.

A turn of the event loop runs all that is ready. With hundreds of clients that send without end, or
replay, that is as many pieces of work, each short, together tens of milliseconds; and meanwhile the
live feed waits. Here they queue instead: in each turn of the loop only as many go on as take a
quarter of a millisecond together. It isn't less that is done, live events only come in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final

from jarvis_mesh.schema.clock import Clock

BUDGET: Final = 0.00025
"""Seconds for all that go on in one turn of the loop."""
MAX_AT_ONCE: Final = 64
FEW: Final = 16
"""Users who, with more connections than that waiting, get at most half of the time: few users
may not keep the loop so busy that what is live waits. Of many, each is soon done."""


class Turns:
    """Gives turns, first come, first served."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[str | None, asyncio.Future[None]]] = deque()
        self._of: Counter[str] = Counter()
        """How many of those that wait are whose, as far as it is known."""
        self._is_running = False
        self._began = 0.0
        self._at_once = MAX_AT_ONCE

    async def mine(self, who: str | None = None) -> None:
        """Return when it is the caller's turn: to do what takes a millisecond at most.

        Args:
            who: The user, or the address, that it is done for.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append((who, turn))
        if who is not None:
            self._of[who] += 1
        if not self._is_running:
            self._is_running = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        """Let some go on in the next turn of the loop, and be back right after them."""
        loop = asyncio.get_running_loop()
        loop.call_soon(self._begin)
        for _ in range(min(self._at_once, len(self._waiting))):
            who, turn = self._waiting.popleft()
            if who is not None:
                self._leave(who)
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
        if not self._waiting:
            self._is_running = False
        elif self._are_of_few():
            asyncio.get_running_loop().call_later(took, self._give)
        else:
            self._give()

    def _are_of_few(self) -> bool:
        """Say whether many turns wait that are for few users."""
        return len(self._of) <= FEW < self._of.total()

    def _leave(self, who: str) -> None:
        self._of[who] -= 1
        if not self._of[who]:
            del self._of[who]
