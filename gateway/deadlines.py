"""When clients have to be gone: at the end of their token, or without one in time.

One look a quarter of a second serves all, as a timer each would cost as much memory as all else
that an idle client has.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from jarvis_mesh.schema.clock import Clock

INTERVAL: Final = 0.25
"""Seconds between looks, and between deadlines that are told apart."""


class Mortal(Protocol):
    """Who has a deadline."""

    def expire(self) -> None:
        """Be ended: the deadline has passed, and was forgotten."""


class Deadlines:
    """Who expires when, in seconds since 1970."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slot_of: dict[Mortal, int] = {}
        self._due: dict[int, dict[Mortal, None]] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def set(self, client: Mortal, at: float) -> None:
        """Let *client* expire at *at*, and no longer when it should have before; `inf` is never."""
        self.forget(client)
        if math.isinf(at):
            return
        slot = math.ceil(at / INTERVAL)
        self._slot_of[client] = slot
        self._due.setdefault(slot, {})[client] = None

    def set_within(self, client: Mortal, seconds: float) -> None:
        """Let *client* expire so many seconds from now."""
        self.set(client, self._clock.time_ms() / 1000 + seconds)

    def forget(self, client: Mortal) -> None:
        """Let *client* live. Idempotent."""
        slot = self._slot_of.pop(client, None)
        if slot is not None:
            together = self._due[slot]
            del together[client]
            if not together:
                del self._due[slot]

    async def run(self) -> None:
        """End whose time has come, until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL)
            now = self._clock.time_ms() / 1000 / INTERVAL
            for slot in [each for each in self._due if each <= now]:
                for client in tuple(self._due[slot]):
                    self.forget(client)
                    client.expire()
