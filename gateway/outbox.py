"""What waits to be written to one client: in order, joined into few writes, never much.

Nobody is refused here. Who writes looks first: a live feed leaves a client that `is_full`, a
catch-up waits until it `is_drained`, and answers are one for each message that was read.
"""

from __future__ import annotations

import asyncio
from typing import Final

JOIN_BYTES: Final = 16 * 1024
"""Messages are joined up to this size; a larger one goes alone."""
BURST_BYTES: Final = 1024 * 1024
"""What may wait while nothing says yet that the socket is slow: the bytes of a burst, which
are shared by all who get them."""


class Outbox:
    """A queue of encoded messages between the gateway and one socket.

    Args:
        high_water_bytes: With more than these unsent, a socket that takes nothing is too slow.
        separator: What stands between joined messages.
    """

    def __init__(self, high_water_bytes: int, separator: bytes) -> None:
        self.taken_bytes = 0
        """All that was handed to the socket so far."""
        self.unsent_bytes = 0
        """What waits, with what the socket hasn't accepted yet."""
        self._high_water_bytes = high_water_bytes
        self._low_water_bytes = high_water_bytes // 4
        self._separator = separator
        self._messages: list[bytes] = []
        self._in_flight_bytes = 0
        self._is_finished = False
        self._wake_writer = asyncio.Event()
        self._below_low_water = asyncio.Event()
        self._below_low_water.set()

    @property
    def is_full(self) -> bool:
        """Whether the socket takes nothing and the high-water mark is passed."""
        limit = self._high_water_bytes if self._in_flight_bytes else BURST_BYTES
        return self.unsent_bytes > limit

    @property
    def is_drained(self) -> bool:
        """Whether few bytes are unsent."""
        return self._below_low_water.is_set()

    async def drained(self) -> None:
        """Return once few bytes are unsent; at once if so."""
        await self._below_low_water.wait()

    def write(self, message: bytes) -> None:
        """Queue *message*; it is copied nowhere."""
        self._messages.append(message)
        self.unsent_bytes += len(message)
        self._wake_writer.set()
        if self.unsent_bytes > self._low_water_bytes:
            self._below_low_water.clear()

    def finish(self, *, discard: bool = False) -> None:
        """Let `take` end after what is queued, or at once when that is to be discarded."""
        self._is_finished = True
        if discard:
            self._messages.clear()
        self._wake_writer.set()

    async def take(self) -> bytes:
        """Return the next messages, joined, once there are some; empty after the last one.

        Call `sent` when the socket has accepted them.
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
        self._in_flight_bytes = size
        self.taken_bytes += len(joined)
        return joined

    def sent(self) -> None:
        """Note that the socket has accepted what `take` returned last."""
        self.unsent_bytes -= self._in_flight_bytes
        self._in_flight_bytes = 0
        if self.unsent_bytes <= self._low_water_bytes:
            self._below_low_water.set()
