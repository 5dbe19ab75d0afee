"""Fair turns: how many messages are heard in one turn of the loop, whoever sent them.

Live events go out between turns. However many clients talk at once, and however much, an event
waits for a millisecond or two of it and not for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

PER_TURN: Final = 32
"""Messages; the dearest, a subscription, takes 0.1 ms before it first waits, a ping 10 µs."""


class Turns:
    """Hands out the right to be heard, in the order of asking."""

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_counting = False

    async def take(self) -> None:
        """Return when it is the caller's turn: at once, if there is one left."""
        if self._left and not self._waiting:
            self._left -= 1
            self._count()
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._count()
        await mine

    def _count(self) -> None:
        """Have the next turn counted, which begins when the loop has come round."""
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_counting = False
        self._left = self._per_turn
        while self._waiting and self._left:
            waiting = self._waiting.popleft()
            if not waiting.done():  # else its client has gone
                waiting.set_result(None)
                self._left -= 1
        if self._waiting:
            self._count()
