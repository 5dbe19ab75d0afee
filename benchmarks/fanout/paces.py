"""When to publish: at a rate, or as fast as the slowest connection takes events."""

from __future__ import annotations

from benchmarks.fanout.connections import Connections

_IN_FLIGHT_BYTES = 1024 * 1024
"""In a closed loop, for one connection: less than the kernel's buffers hold."""


class SteadyPace:
    """So many events a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.look_every = 0.0

    def due(self, elapsed: float, sent: int, _: Connections) -> int:
        """Return how many events to publish now."""
        return int(elapsed * self._rate) + 1 - sent

    def wait(self, elapsed: float, sent: int) -> float:
        """Return after how many seconds the next event is due."""
        return min(max(sent / self._rate - elapsed, 0.0), 0.1)


class ClosedPace:
    """As fast as the slowest connection takes them.

    What is in flight is what was delivered within the last quarter of a second or so, between
    16 and 1,024 events: enough for full batches, little enough that a slow server isn't
    overwhelmed and the end comes soon.
    """

    def __init__(self, connections: int, body_bytes: int) -> None:
        self._most = max(16, min(1024, _IN_FLIGHT_BYTES // body_bytes))
        # Finding the slowest takes a microsecond for every 30 connections.
        self.look_every = max(0.001, connections * 1e-6)

    def due(self, elapsed: float, sent: int, connections: Connections) -> int:
        """Return how many events to publish now."""
        slowest = connections.slowest()
        window = slowest / elapsed * 0.25 if elapsed else 0.0
        return int(min(max(window, 16), self._most)) - (sent - slowest)

    def wait(self, _: float, __: int) -> float:
        """Return after how many seconds to look again."""
        return self.look_every
