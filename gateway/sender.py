"""Saying things to one client, until the connection is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.wire import Notice

TRY_AGAIN_LATER: Final = 1013
"""WebSocket close code (IANA registry)."""


class Sender:
    """Encodes messages for one client and queues them.

    Args:
        form: What they are written as.
        outbox: Where the socket takes them from.
        encoded_runs: Those of the gateway, shared by all clients.
        unacknowledged: Returns how many bytes the socket has accepted that the client's side
            hasn't.
    """

    def __init__(
        self,
        form: Format,
        outbox: Outbox,
        encoded_runs: EncodedRuns,
        clock: Clock,
        unacknowledged: Callable[[], int],
    ) -> None:
        self.form = form
        self.ended = asyncio.Event()
        """Set when the gateway ends the connection."""
        self.close_code = 1000
        self.close_reason = ""
        self.on_end: Callable[[], None] = lambda: None
        """Called once, when the connection is ended from here."""
        self.last_sent = clock.monotonic()
        self._outbox = outbox
        self._encoded_runs = encoded_runs
        self._clock = clock
        self._unacknowledged = unacknowledged
        self._taken_bytes = 0
        self._last_progress = self.last_sent

    @property
    def is_full(self) -> bool:
        """Whether the client takes too little to get live events."""
        return self._outbox.is_full

    @property
    def is_drained(self) -> bool:
        """Whether the client has taken most of what was sent."""
        return self._outbox.is_drained

    async def drained(self) -> None:
        """Return once it has."""
        await self._outbox.drained()

    def stalled_for(self) -> float:
        """Return for how many seconds the client has taken nothing of what waits for it."""
        now = self._clock.monotonic()
        unacknowledged = self._unacknowledged()
        taken = self._outbox.taken_bytes - unacknowledged
        if taken != self._taken_bytes or not (unacknowledged or self._outbox.unsent_bytes):
            self._taken_bytes = taken
            self._last_progress = now
        return now - self._last_progress

    def say(self, notice: Notice) -> None:
        """Send anything but an event."""
        self.send(self.form.encode(notice))

    def say_events(self, run: Run, sub: str | None = None) -> None:
        """Send events for all live subscriptions, or for one alone."""
        self.send(self._encoded_runs.encode(run, self.form, sub))

    def send(self, message: bytes) -> None:
        """Send an encoded message."""
        if not self.ended.is_set():
            self._outbox.write(message)
            self.last_sent = self._clock.monotonic()

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """Send nothing from now on, and close once what is queued was written or discarded."""
        if self.ended.is_set():
            return
        self.close_code, self.close_reason = code, reason
        self.ended.set()
        self._outbox.finish(discard=discard)
        self.on_end()
