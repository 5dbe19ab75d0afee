"""A conflated subscription: only the newest event of each subject, every so often."""

from __future__ import annotations

import asyncio
from typing import Final

from jarvis_mesh.gateway.catchup import Missing, unreadable
from jarvis_mesh.gateway.feed import Feed, Target
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.stored_event import StoredEvent

MAX_SUBJECTS: Final = 1024
"""Flushed early rather than holding more."""
MAX_BYTES: Final = 1024 * 1024
"""The same for the sum of their bodies."""


class Conflation:
    """Keeps the newest event of each subject until the next flush.

    A client that is too slow has its flushes put off, and when more is held than is allowed, it
    is forgotten: the feed then goes on from the log after what was flushed last.

    Args:
        interval: Seconds between flushes.
        feed: What it is for; brought here when it has become live.
        target: Where a flush goes.
    """

    def __init__(self, interval: float, feed: Feed, target: Target, services: Services) -> None:
        self.last_seq = 0
        self._interval = interval
        self._feed = feed
        self._target = target
        self._services = services
        self._flushed = feed.engine.cursor
        self._newest: dict[str, StoredEvent] = {}
        self._bytes = 0
        self._behind = asyncio.Event()

    def start(self) -> None:
        """Take every event above the live feed's position."""
        self._flushed = self._feed.now()
        self._join()

    def stop(self) -> None:
        """Take no more. What is held is dropped: a newer state would have come anyway."""
        for interest in self._feed.interests:
            interest.sinks.discard(self)

    def fall_behind(self) -> None:
        """Take no more from the live feed, whose position is where to go on from."""
        if self._feed.engine.is_live and not self._behind.is_set():
            self.stop()
            self._feed.engine.fall_behind(self._feed.now())
            self._behind.set()

    def deliver(self, event: StoredEvent) -> None:
        """Keep *event* instead of an older one on its subject."""
        # Removed first, so that the dict stays in the order of the sequences.
        older = self._newest.pop(event.subject, None)
        self._bytes += event.size_bytes - (0 if older is None else older.size_bytes)
        self._newest[event.subject] = event
        if len(self._newest) >= MAX_SUBJECTS or self._bytes > MAX_BYTES:
            self._flush_early(event)

    async def run(self) -> None:
        """Flush every interval, and catch up when it is behind, until cancelled."""
        while True:
            await self._services.clock.sleep(self._interval)
            if self._behind.is_set():
                await self._feed.pursue(self)
                self._behind.clear()
                self._join()
            if self._target.is_drained:
                self._flush()
                self._flushed = self._feed.now()

    # As the engine sees it

    @property
    def is_drained(self) -> bool:
        return self._target.is_drained

    async def drained(self) -> None:
        await self._target.drained()

    def put(self, run: Run) -> None:
        for event in run:
            self.deliver(event)

    def miss(self, missing: Missing) -> None:
        self._flush()  # what is held lies before it
        self._target.miss(missing)

    def _join(self) -> None:
        self.last_seq = self._services.live.position
        for interest in self._feed.interests:
            interest.sinks.add(self)

    def _flush_early(self, event: StoredEvent) -> None:
        if self._target.is_drained:
            self._flush()
            if self._feed.engine.is_live:
                self._flushed = self._flushed.at(event.seq)
        elif self._feed.engine.is_live:
            self._forget()
            self.stop()
            self._feed.engine.fall_behind(self._flushed)
            self._behind.set()

    def _flush(self) -> None:
        newest = tuple(self._newest.values())
        self._forget()
        for event in newest:
            if not event.is_readable:
                self._target.miss(unreadable(event, self._services.live.epoch))
            else:
                self._target.put((event,))

    def _forget(self) -> None:
        self._newest.clear()
        self._bytes = 0
