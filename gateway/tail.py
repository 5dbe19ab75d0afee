"""The last live copies of this process, so that joining the live feed needs no buffer."""

from __future__ import annotations

from collections import deque
from itertools import dropwhile, islice
from typing import Final

from jarvis_mesh.gateway.log_reader import PAGE_EVENTS, Page
from jarvis_mesh.gateway.stored_event import StoredEvent

MAX_EVENTS: Final = 4096
"""At 20,000 events/s a fifth of a second: many times what reading a page takes."""
MAX_BYTES: Final = 4 * 1024 * 1024


class Tail:
    """A bounded run of copies in log order, each sequence once."""

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self.floor = 0
        """It holds every copy that came after this sequence."""
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes

    def append(self, event: StoredEvent) -> None:
        """Keep the newest copy, and let go of the oldest beyond the bounds."""
        self._events.append(event)
        self._bytes += len(event.body)
        while len(self._events) > self._max_events or self._bytes > self._max_bytes:
            oldest = self._events.popleft()
            self._bytes -= len(oldest.body)
            self.floor = oldest.seq

    def page(self, after_seq: int) -> Page:
        """Return the next copies above *after_seq*, which must not be below the floor."""
        newer = dropwhile(lambda event: event.seq <= after_seq, self._events)
        events = tuple(islice(newer, PAGE_EVENTS + 1))
        return Page(events[:PAGE_EVENTS], pending=len(events) > PAGE_EVENTS)

    def reset(self, floor: int) -> None:
        """Forget everything: copies up to *floor* may have been missed, or are of another log."""
        self._events.clear()
        self._bytes = 0
        self.floor = floor
