"""A conflated subscription: only the newest event of each subject, every so often."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.clock import Clock

MAX_SUBJECTS: Final = 1024
"""Flushed early rather than holding more."""


class Conflation:
    """A sink that keeps the newest event of each subject.

    Args:
        interval: Seconds between flushes.
        send: Sends an event, or says that it can't be read.
    """

    def __init__(self, interval: float, clock: Clock, send: Callable[[StoredEvent], None]) -> None:
        self.last_seq = 0
        self._interval = interval
        self._clock = clock
        self._send = send
        self._newest: dict[str, StoredEvent] = {}

    def start(self, interests: Iterable[Interest], position: int) -> None:
        """Take every event above *position* that one of *interests* is for."""
        self.last_seq = position
        for interest in interests:
            interest.sinks.add(self)

    def stop(self, interests: Iterable[Interest]) -> None:
        """Take no more. What is held is dropped: a newer state would have come anyway."""
        for interest in interests:
            interest.sinks.discard(self)

    def deliver(self, event: StoredEvent) -> None:
        """Keep *event* instead of an older one on its subject."""
        # Removed first, so that the dict stays in the order of the sequences.
        self._newest.pop(event.subject, None)
        self._newest[event.subject] = event
        if len(self._newest) >= MAX_SUBJECTS:
            self._flush()

    async def run(self) -> None:
        """Flush every interval, until cancelled."""
        while True:
            await self._clock.sleep(self._interval)
            self._flush()

    def _flush(self) -> None:
        newest, self._newest = self._newest, {}
        for event in newest.values():
            self._send(event)
