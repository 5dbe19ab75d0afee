"""A latch: whoever waits goes on once it is open.

`asyncio.Event` keeps a deque for its waiters, 700 bytes, whether anybody waits or not; each
connection has two of these, and mostly nobody waits.
"""

from __future__ import annotations

import asyncio


class Latch:
    """Open or closed."""

    __slots__ = ("_waiting", "is_open")

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open
        self._waiting: asyncio.Event | None = None

    def open(self) -> None:
        """Let everybody go on who waits or comes to wait. Idempotent."""
        self.is_open = True
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None

    def close(self) -> None:
        """Let who comes from now on wait. Idempotent."""
        self.is_open = False

    async def wait(self) -> None:
        """Return once it is opened; at once if it is open."""
        if not self.is_open:
            if self._waiting is None:
                self._waiting = asyncio.Event()
            await self._waiting.wait()
