"""How far back a replay may go, where that is limited.

Source: docs/operations.md, "Limits".
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from jarvis_mesh.gateway.log_reader import LogReader, LogState
from jarvis_mesh.gateway.over_limit import BeyondError
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.cursor import Cursor

_REMEMBERED: Final = 1.0
"""Seconds; who comes a little later may go back a little further."""


class ReplayAge:
    """Looks up which event is the oldest that a replay may have.

    Args:
        seconds: How far back it may go; `None` as far as the log goes.
    """

    def __init__(self, seconds: float | None, reader: LogReader, clock: Clock) -> None:
        self._seconds = seconds
        self._reader = reader
        self._clock = clock
        self._found = (-math.inf, "", 1)

    async def oldest(self, cursor: Cursor, state: LogState) -> int:
        """Return the sequence from which on events may be replayed.

        Args:
            cursor: Where the replay would go on after.

        Raises:
            BeyondError: that is further back.
            UnavailableError, DeadlineError: NATS is away.
        """
        if self._seconds is None:
            return 1
        oldest = await self._look_up(self._seconds, state)
        if cursor.epoch == state.epoch and cursor.seq + 1 < oldest and state.first_seq < oldest:
            message = f"since: this gateway replays at most {self._seconds:g} seconds"
            raise BeyondError("replay_age", message)
        return oldest

    async def _look_up(self, seconds: float, state: LogState) -> int:
        now = self._clock.monotonic()
        found_at, epoch, oldest = self._found
        if epoch != state.epoch or now - found_at > _REMEMBERED:
            first = await self._reader.first_at(state.time - timedelta(seconds=seconds))
            oldest = state.last_seq + 1 if first is None else first
            self._found = (now, state.epoch, oldest)
        return oldest
