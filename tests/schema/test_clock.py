"""The machine's clock is a clock."""

from __future__ import annotations

import time

from jarvis_mesh.schema.clock import Clock, SystemClock


async def test_the_system_clock_sleeps_and_tells_the_time() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.002)
    assert clock.monotonic() - before >= 0.002
    assert abs(clock.time_ms() - time.time() * 1000) < 1_000
