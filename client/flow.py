"""Backpressure: while one queue is full, the reader leaves the socket alone."""

from __future__ import annotations

import asyncio


class Flow:
    """Who can't take more now. Nothing is dropped here: what isn't read waits in the gateway."""

    def __init__(self) -> None:
        self._full: set[object] = set()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def is_paused(self) -> bool:
        return bool(self._full)

    def pause(self, who: object) -> None:
        """Stop the reader until *who* has room again. Idempotent."""
        self._full.add(who)
        self._free.clear()

    def resume(self, who: object) -> None:
        """Say that *who* has room, or is gone. Idempotent."""
        self._full.discard(who)
        if not self._full:
            self._free.set()

    async def wait(self) -> None:
        """Return when everybody has room."""
        await self._free.wait()
