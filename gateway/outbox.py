"""What waits to be written to one client: in order, joined into few writes, never much.

Nobody is refused here. Who writes looks first: a live feed leaves a client that `is_full`, a
catch-up waits until it is `drained`, and answers are one for each message that was read.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from jarvis_mesh.gateway.sockets import unacknowledged_bytes

JOIN_BYTES: Final = 16 * 1024
"""Messages for one client are joined up to this size; a larger one goes alone."""
UNPROVEN_BYTES: Final = 1024 * 1024
"""What may wait while nothing says yet that the socket is slow: the bytes of a burst, which
are shared by all who get them."""


class Burst(Protocol):
    """Messages that go to several clients at once."""

    @property
    def joined(self) -> bytes:
        """The messages as one."""

    @property
    def frame(self) -> bytes:
        """The same as a WebSocket frame."""


class Outbox(Protocol):
    """The way to one client."""

    has_written: bool
    """Whether anything was written since somebody set it to false."""

    @property
    def is_full(self) -> bool:
        """Whether the socket takes nothing and the high-water mark is passed."""

    @property
    def is_drained(self) -> bool:
        """Whether a catch-up may write more."""

    async def drained(self) -> None:
        """Return once it may; at once if so."""

    def write(self, message: bytes) -> None:
        """Send an encoded message."""

    def write_burst(self, burst: Burst) -> bool:
        """Send what others get too, and return true; don't, and return false, when it is full."""

    def unacknowledged_bytes(self) -> int:
        """Return how many bytes the client's side hasn't taken in yet."""

    def finish(self, code: int, reason: str, *, discard: bool) -> None:
        """Close after what is queued, or at once when that is to be discarded."""

    def abort(self) -> None:
        """Cut the connection. Idempotent."""


class QueuedOutbox:
    """A queue between the gateway and a socket that an ASGI server writes to.

    Args:
        high_water_bytes: With more than these unsent, a socket that takes nothing is too slow.
        separator: What stands between joined messages.
        transport: That of the socket, where the server shows it.
    """

    def __init__(
        self, high_water_bytes: int, separator: bytes, transport: asyncio.Transport | None
    ) -> None:
        self.has_written = False
        self.unsent_bytes = 0
        """What waits, with what the socket hasn't accepted yet."""
        self.close_code = 1000
        self.close_reason = ""
        self.aborted = asyncio.Event()
        """Set when the connection is to be cut, whatever is left."""
        self._high_water_bytes = high_water_bytes
        self._low_water_bytes = high_water_bytes // 4
        self._separator = separator
        self._transport = transport
        self._messages: list[bytes] = []
        self._in_flight_bytes = 0
        self._is_finished = False
        self._wake_writer = asyncio.Event()
        self._below_low_water = asyncio.Event()
        self._below_low_water.set()

    @property
    def is_full(self) -> bool:
        limit = self._high_water_bytes if self._in_flight_bytes else UNPROVEN_BYTES
        return self.unsent_bytes > limit

    @property
    def is_drained(self) -> bool:
        return self._below_low_water.is_set()

    async def drained(self) -> None:
        await self._below_low_water.wait()

    def write(self, message: bytes) -> None:
        self._messages.append(message)
        self.has_written = True
        self.unsent_bytes += len(message)
        self._wake_writer.set()
        if self.unsent_bytes > self._low_water_bytes:
            self._below_low_water.clear()

    def write_burst(self, burst: Burst) -> bool:
        if self.is_full:
            return False
        self.write(burst.joined)
        return True

    def unacknowledged_bytes(self) -> int:
        return self.unsent_bytes + unacknowledged_bytes(self._transport)

    def finish(self, code: int, reason: str, *, discard: bool) -> None:
        self.close_code, self.close_reason = code, reason
        self._is_finished = True
        if discard:
            self._messages.clear()
        self._wake_writer.set()

    def abort(self) -> None:
        self.aborted.set()

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
        return joined

    def sent(self) -> None:
        """Note that the socket has accepted what `take` returned last."""
        self.unsent_bytes -= self._in_flight_bytes
        self._in_flight_bytes = 0
        if self.unsent_bytes <= self._low_water_bytes:
            self._below_low_water.set()
