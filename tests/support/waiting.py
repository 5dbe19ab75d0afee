"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def wait_until(
    condition: Callable[[], object], what: str = "the condition", *, within: float = 10.0
) -> None:
    """Return once *condition* is true; fail, saying *what* didn't come, after *within* seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} didn't come within {within} s")
        await asyncio.sleep(0.005)  # noqa: TID251 - polls a condition
