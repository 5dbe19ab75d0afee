"""Memory that is free goes back to the system.

glibc keeps what was freed in case it is wanted again, and after a few large messages it takes large
blocks from the middle of the heap, which then can't shrink: an hour of messages of a megabyte left
50 MiB that nobody used. Elsewhere than on Linux with glibc nothing is done.

Source: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

from jarvis_mesh.schema.clock import Clock

INTERVAL: Final = 30.0
LARGE_BYTES: Final = 256 * 1024
"""From here on a block is the system's own, and goes back as soon as it is freed."""
_M_MMAP_THRESHOLD: Final = -3

_libc: Final = ctypes.CDLL(None)


def keep_large_blocks_apart() -> None:
    """Have large blocks taken from the system, not from the heap."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


async def give_back(clock: Clock) -> None:
    """Give back what is free now and then, until cancelled; each time takes some 2 ms."""
    while True:
        await clock.sleep(INTERVAL)
        if hasattr(_libc, "malloc_trim"):
            _libc.malloc_trim(0)
