"""Time as an argument, so that tests can drive it. Only the clock sleeps.

`Clock` is the seam, `SystemClock` the machine's own; tests have one they turn by hand.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where a program gets its time from."""

    def time_ms(self) -> int:
        """Return milliseconds since 1970 UTC; it can jump."""

    def monotonic(self) -> float:
        """Return seconds since some start; it never goes back."""

    def busy(self) -> float:
        """Return the seconds of CPU that this thread has used since some start."""

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*; at once when not positive, but others run in between."""


class SystemClock:
    """The machine's clock."""

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def busy(self) -> float:
        return time.thread_time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - the one place that does
