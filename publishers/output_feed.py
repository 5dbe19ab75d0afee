"""A terminal's output on its way into the log: in batches, and never in the program's way.

Bytes are published 15 ms after the first of a batch came, or when there are 16 KiB of them.
While the publisher's window is full the terminal isn't read, so the program waits as it would
for a slow screen. But not for a mesh that is away: then, or when there was no room for 5 s,
bytes are dropped and counted, and the next event says how many came before it and are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from jarvis_mesh.publishers.base import EventPublisher
from jarvis_mesh.publishers.event_builder import Filing
from jarvis_mesh.publishers.utf8 import Utf8Decoder
from jarvis_mesh.publishers.window import Published
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.event import JSON

BATCH_BYTES: Final = 16 * 1024
"""PTY output compresses to 0.09 at this size, to 0.25 at 1 KiB."""
BATCH_DELAY: Final = 0.015
"""Seconds: less than a screen's frame."""
STALL: Final = 5.0
"""Seconds that a program may be held up by a mesh that is there but takes nothing."""
_ROOM_BYTES: Final = 128 * 1024
"""The largest body that a batch can have: nothing but invalid bytes, incompressible."""

log = structlog.get_logger(__name__)


class OutputFeed:
    """Publishes the output of one terminal.

    Args:
        payload: What every event's payload begins with.
        on_room: Called when the terminal may be read again.
    """

    def __init__(
        self,
        publisher: EventPublisher,
        payload: dict[str, JSON],
        filing: Filing,
        *,
        clock: Clock,
        on_room: Callable[[], None],
    ) -> None:
        self.dropped_bytes = 0
        """Output that the log doesn't have, or may not have, since the terminal was made."""
        self._publisher = publisher
        self._payload = payload
        self._filing = filing
        self._clock = clock
        self._on_room = on_room
        self._decoder = Utf8Decoder()
        self._buffer = bytearray()
        self._has_bytes = asyncio.Event()
        self._unsaid = 0
        """Dropped bytes that no event has told of yet."""
        self._is_stalled = False

    @property
    def is_full(self) -> bool:
        """Whether the terminal must not be read now; `on_room` says when it may be again."""
        return len(self._buffer) >= BATCH_BYTES

    def add(self, chunk: bytes) -> None:
        """Take what was read from the terminal."""
        self._buffer += chunk
        self._has_bytes.set()
        if self.is_full and not self._emit() and self._is_stalled:
            self._drop()  # at once: waiting for `run` would hold the program up

    async def run(self) -> None:
        """Publish batches until cancelled."""
        while True:
            await self._has_bytes.wait()
            await self._clock.sleep(BATCH_DELAY)
            await self._flush()
            self._on_room()

    async def finish(self) -> None:
        """Publish what is left, with half a character if the program ended in one."""
        await self._flush(final=True)

    def take_unsaid(self) -> dict[str, JSON]:
        """Return the payload key that tells of dropped bytes, if there are any untold."""
        unsaid, self._unsaid = self._unsaid, 0
        return {"dropped": unsaid} if unsaid else {}

    async def _flush(self, *, final: bool = False) -> None:
        if self._emit(final=final):
            return
        if not self._is_stalled and await self._publisher.wait_for_room(_ROOM_BYTES, within=STALL):
            self._emit(final=final)
        else:
            self._drop()

    def _emit(self, *, final: bool = False) -> bool:
        """Publish the batch and say so; `False` when there is no room for it."""
        if not self._publisher.has_room(_ROOM_BYTES):
            return False
        self._is_stalled = False
        decoded = self._decoder.decode(bytes(self._buffer), final=final)
        self._clear()
        if decoded.data:
            payload = self._payload | decoded.as_payload("output") | self.take_unsaid()
            size = len(decoded.data)
            ack = self._publisher.send_nowait("terminal:output", payload, **self._filing)
            ack.add_done_callback(lambda ack: self._check(ack, size))
        return True

    def _check(self, ack: asyncio.Future[Published], size: int) -> None:
        if ack.cancelled() or ack.exception() is not None:
            self._count_dropped(size)

    def _drop(self) -> None:
        if not self._is_stalled:
            self._is_stalled = True
            log.warning("terminal output is dropped: the mesh takes none", **self._payload)
        size = len(self._buffer) + self._decoder.reset()
        self._clear()
        self._count_dropped(size)

    def _count_dropped(self, size: int) -> None:
        self.dropped_bytes += size
        self._unsaid += size

    def _clear(self) -> None:
        self._buffer.clear()
        self._has_bytes.clear()
