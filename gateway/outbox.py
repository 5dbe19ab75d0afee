"""What waits to be written to one client: bounded, in order, joined into few writes."""

from __future__ import annotations

import asyncio
from typing import Final

from jarvis_mesh.schema.errors import LimitError

LOW_WATER_BYTES: Final = 256 * 1024
"""Below this, a replay or a talkative client goes on."""
JOIN_BYTES: Final = 64 * 1024
"""Messages are joined up to this size; a larger one goes alone."""


class Outbox:
    """A queue of encoded messages between the gateway and one socket.

    Args:
        max_bytes: Beyond this many unsent bytes the client is too slow: `write` raises.
        separator: What stands between joined messages.
    """

    def __init__(self, max_bytes: int, separator: bytes) -> None:
        self._max_bytes = max_bytes
        self._low_water_bytes = min(LOW_WATER_BYTES, max_bytes // 2)
        self._separator = separator
        self._messages: list[bytes] = []
        self._unsent_bytes = 0
        self._taken_bytes = 0
        self._is_finished = False
        self._wake_writer = asyncio.Event()
        self._below_low_water = asyncio.Event()
        self._below_low_water.set()

    def write(self, message: bytes) -> None:
        """Queue *message*; it is copied nowhere.

        Raises:
            LimitError: the client has too much unsent; the message isn't queued.
        """
        if self._unsent_bytes + len(message) > self._max_bytes and self._messages:
            raise LimitError(f"over {self._max_bytes:,} unsent bytes")
        self._messages.append(message)
        self._unsent_bytes += len(message)
        self._wake_writer.set()
        if self._unsent_bytes > self._low_water_bytes:
            self._below_low_water.clear()

    @property
    def is_drained(self) -> bool:
        """Whether few bytes are unsent."""
        return self._below_low_water.is_set()

    async def drained(self) -> None:
        """Return once few bytes are unsent; at once if so."""
        await self._below_low_water.wait()

    def finish(self, *, discard: bool = False) -> None:
        """Let `take` end after what is queued, or at once when that is to be discarded."""
        self._is_finished = True
        if discard:
            self._messages.clear()
        self._wake_writer.set()

    async def take(self) -> bytes:
        """Return the next messages, joined, once there are some; empty after the last one.

        Call `sent` after writing them.
        """
        await self._wake_writer.wait()
        size, count = 0, 0
        for message in self._messages:
            if count and size + len(message) > JOIN_BYTES:
                break
            size += len(message)
            count += 1
        joined = self._separator.join(self._messages[:count])
        del self._messages[:count]
        if not self._messages and not self._is_finished:
            self._wake_writer.clear()
        self._taken_bytes = size
        return joined

    def sent(self) -> None:
        """Count what `take` returned last as written."""
        self._unsent_bytes -= self._taken_bytes
        if self._unsent_bytes <= self._low_water_bytes:
            self._below_low_water.set()
