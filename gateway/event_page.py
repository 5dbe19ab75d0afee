"""One page of a feed as JSON: history, or with `wait` the next event (long poll).

Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.catchup import Missing, unreadable
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import gap
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.errors import DeadlineError

READ_WITHIN: Final = 20.0
"""Seconds for reading the log; a page that isn't full by then ends early."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""Sum of the bodies in one page, beyond which it ends early."""


class _Complete(Exception):  # noqa: N818 - no error: it ends a pursuit from within
    """The page takes no more."""


class EventPage:
    """Collects what follows a feed's cursor, until the page is full or the log's end is reached.

    A page holds at most one gap, and that is before its events; it ends before the next one.
    """

    is_lagging = False
    subscriptions = 1

    def __init__(
        self, feed: Feed, services: Services, limit: int, grants: Grants, visit: Visit
    ) -> None:
        self.grants = grants
        self.visit = visit
        self.last_seq = 0
        self._feed = feed
        self._services = services
        self._limit = limit
        self._cursor = feed.engine.cursor
        self._gap: Missing | None = None
        self._events: list[StoredEvent] = []
        self._bytes = 0
        self._is_complete = False
        self._woken = asyncio.Event()

    async def collect(self, wait: float) -> bytes:
        """Return the page; when it would be empty, wait for an event for *wait* seconds.

        Closes the feed.

        Raises:
            DeadlineError: the log couldn't be read.
        """
        deadlines = self._services.deadlines
        deadlines.set(self, self.grants.expires)
        try:
            await self._read()
            if not self._is_complete and wait and not self._events and self._gap is None:
                await self._wait(wait)
            self._complete()
        finally:
            deadlines.forget(self)
            self._leave()
            await self._feed.close()
        return self._answer()

    # As the gateway sees it

    def fall_behind(self) -> None:
        """End the page where the live feed has a hole."""
        if self._feed.engine.is_live:
            self._complete()

    def look_after(self, now: float, silent_after: float) -> None:
        """Do nothing: a page has an end of its own."""

    def abort(self) -> None:
        """End the page now."""
        self._complete()

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """End the page now; its client comes back with its cursor."""
        self._complete()

    def expire(self) -> None:
        """End the page now, with what its client was granted until now."""
        self._complete()

    def deauthorize(self, message: str, reason: str) -> None:
        """End the page now."""
        self._complete()

    # As the engine and the live feed see it

    @property
    def is_drained(self) -> bool:
        return not self._is_complete

    async def drained(self) -> None:
        if self._is_complete:
            raise _Complete

    def put(self, run: Run) -> None:
        for event in run:
            if self._is_complete:
                return
            self._events.append(event)
            self._bytes += event.size_bytes
            self._cursor = self._cursor.at(event.seq)
            if len(self._events) >= self._limit or self._bytes >= MAX_BYTES:
                self._is_complete = True

    def miss(self, missing: Missing) -> None:
        if self._events or self._gap is not None:
            self._is_complete = True
        elif not self._is_complete:
            self._services.metrics.gap(missing.reason)
            self._gap = missing
            self._cursor = missing.cursor

    def deliver(self, event: StoredEvent) -> None:
        if not event.is_readable:
            self.miss(unreadable(event, self._cursor.epoch))
        else:
            self.put((event,))
        self._woken.set()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(READ_WITHIN):
                await self._feed.begin(self)
                await self._feed.pursue(self)
        except _Complete:
            return
        except TimeoutError:
            if not self._events and self._gap is None:
                raise DeadlineError("the log couldn't be read in time; try again") from None
            self._is_complete = True
            return
        # Nothing else has run since the feed became live.
        self._cursor = self._feed.now()
        self.last_seq = self._cursor.seq
        for interest in self._feed.interests:
            interest.sinks.add(self)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass  # an empty page, with a cursor that has moved on

    def _complete(self) -> None:
        """Take no more; if nothing was left out, the cursor is where the live feed is."""
        if not self._is_complete and self._feed.engine.is_live:
            self._cursor = self._feed.now()
        self._is_complete = True
        self._leave()
        self._woken.set()

    def _leave(self) -> None:
        for interest in self._feed.interests:
            interest.sinks.discard(self)

    def _answer(self) -> bytes:
        parts = [b'{"events":[', b",".join(event.numbered_json for event in self._events)]
        parts.append(b'],"cursor":"%s"' % str(self._cursor).encode())
        if self._gap is not None:
            said = msgspec.to_builtins(gap(None, self._gap, self._gap.from_seq))
            del said["op"]
            parts.append(b',"gap":%s' % msgspec.json.encode(said))
        return b"".join([*parts, b"}\n"])
