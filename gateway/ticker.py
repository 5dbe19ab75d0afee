"""Ticks: how the position moves while nothing matches, and how silent losses are noticed.

STREAM.INFO is asked every second. While it is above the last tick seen, whoever has seen no
tick for half a second publishes one, after a random pause, so that one serves all gateways
and an idle log stays idle. A tick that is due and doesn't come means that copies don't come
either, though the connection lives: between two NATS nodes a route may be broken. And a leader
that didn't answer may have been replaced. In both cases the live feed is held and repaired.
"""

from __future__ import annotations

import random
from typing import Final

import structlog

from jarvis_mesh.gateway.live_feed import LiveFeed
from jarvis_mesh.gateway.log_reader import LogReader, LogState
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import DeadlineError, MeshError

INTERVAL: Final = 1.0
QUIET: Final = 0.5
"""Seconds without anybody's tick before publishing one."""
MAX_PAUSE: Final = 0.2
OVERDUE: Final = 2.0
"""Seconds without a tick that is due."""

log = structlog.get_logger(__name__)


class Ticker:
    """Asks for the log's state and ticks when it is due."""

    def __init__(self, live: LiveFeed, reader: LogReader, clock: Clock) -> None:
        self.log_is_there = False
        """Whether the log answered when it was asked last."""
        self._live = live
        self._reader = reader
        self._clock = clock
        self._seen_seq = 0
        self._seen_at = clock.monotonic()
        self._due_seq = 0
        self._due_since: float | None = None

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            try:
                await self._round()
            except MeshError as error:
                if self.log_is_there:
                    log.warning("the log doesn't answer", error=error.message)
                self.log_is_there = False
                if isinstance(error, DeadlineError):
                    self._live.hold("silence")
            await self._clock.sleep(INTERVAL)

    async def _round(self) -> None:
        if not self.log_is_there:
            # Where the log stands must be known before the first client asks.
            state = await self._live.barrier()
        else:
            state = await self._reader.state()
            self._live.observe(state)
        self.log_is_there = True
        self._look_for_overdue(state)
        if state.last_seq > self._live.last_tick_seq and self._is_quiet():
            await self._clock.sleep(random.uniform(0, MAX_PAUSE))  # noqa: S311 - spreads load
            if self._is_quiet():
                await self._live.tick()

    def _look_for_overdue(self, state: LogState) -> None:
        """Hold the live feed if a tick after the log's end as it was 2 s ago hasn't come."""
        now = self._clock.monotonic()
        if self._live.held.is_set() or self._live.last_tick_seq > self._due_seq:
            self._due_since = None
        if self._due_since is not None and now - self._due_since >= OVERDUE:
            self._due_since = None
            self._live.hold("tick")
        elif self._due_since is None and state.last_seq > self._live.last_tick_seq:
            self._due_seq, self._due_since = state.last_seq, now

    def _is_quiet(self) -> bool:
        now = self._clock.monotonic()
        if self._live.last_tick_seq != self._seen_seq:
            self._seen_seq, self._seen_at = self._live.last_tick_seq, now
        return now - self._seen_at >= QUIET
