"""The load generator: a process that publishes, takes what comes of it, and counts.

    python -m benchmarks.fanout.generator

It reads requests from stdin, a JSON object a line, and answers each with one: first `connect`,
then any number of `load`. Publishing and receiving take turns in one thread, so it needs one
core at most; its answer says how much of it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.fanout.accounting import cpu_seconds, machine_cpu_seconds, rss_bytes
from benchmarks.fanout.connections import Connections
from benchmarks.fanout.dialects import Filters, rooms, steps
from benchmarks.fanout.events import Template, make_event
from benchmarks.fanout.source import Source
from benchmarks.stage import open_many_files

GIVE_UP_AFTER = 16.0
"""Seconds after the last event was published."""
SETTLE = 0.3
"""Seconds in which an event too many would come."""
_BURST = 256
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


@dataclass
class Generator:
    """The connections to one server, and the source of its events."""

    connections: Connections
    source: Source
    filters: Filters
    form: Any
    pids: list[int]
    sent: int = 0

    def load(self, rate: float | None, seconds: float, body_bytes: int) -> dict[str, Any]:
        """Publish for *seconds* and say what came of it.

        Args:
            rate: Events a second; `None` is a closed loop.
        """
        count = len(self.connections)
        users = count if self.filters == "own" else 1
        templates = [self._template(f"u{user}", body_bytes) for user in range(users)]
        pace = ClosedPace(count, body_bytes) if rate is None else SteadyPace(rate)
        latencies: list[int] | None = None if rate is None else []
        self.connections.reset()
        self.sent = 0
        used = self._used()
        began = time.monotonic()
        self._publish(templates, pace, began, seconds, latencies)
        fan_out = 1 if self.filters == "own" else count
        self._take_the_rest(self.sent * fan_out, latencies)
        wall = time.monotonic() - began
        names = ("cpu", "own_cpu", "machine_cpu")
        return {
            "events": self.sent,
            "deliveries": self.connections.total,
            "wall": wall,
            **{
                name: after - before
                for name, before, after in zip(names, used, self._used(), strict=True)
            },
            **_percentiles(latencies or []),
            **self._check(),
        }

    def _used(self) -> tuple[float, float, float]:
        return cpu_seconds(self.pids), time.process_time(), machine_cpu_seconds()

    def _template(self, user: str, body_bytes: int) -> Template:
        return Template(make_event(user, body_bytes), self.form, rooms(self.filters, user))

    def _publish(
        self,
        templates: list[Template],
        pace: SteadyPace | ClosedPace,
        began: float,
        seconds: float,
        latencies: list[int] | None,
    ) -> None:
        connections, look_at = self.connections, 0.0
        while (elapsed := time.monotonic() - began) < seconds:
            if elapsed >= look_at:
                look_at = elapsed + pace.look_every
                if (due := pace.due(elapsed, self.sent, connections)) > 0:
                    self._send(templates, min(due, _BURST))
                self.source.service()
            connections.take(pace.wait(elapsed, self.sent), latencies)

    def _send(self, templates: list[Template], count: int) -> None:
        now, kinds = time.monotonic_ns(), len(templates)
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        self.source.publish(b"".join(templates[n % kinds].publish(n, now) for n in numbers))

    def _take_the_rest(self, expected: int, latencies: list[int] | None) -> None:
        connections, deadline = self.connections, time.monotonic() + GIVE_UP_AFTER
        while connections.total < expected and time.monotonic() < deadline:
            self.source.service()
            connections.take(0.05, latencies)

    def _check(self) -> dict[str, Any]:
        """Return on how many connections the count or the last event is not what it should be."""
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            self.connections.take(0.05)
        count, sent = len(self.connections) + self.connections.lost, self.sent
        if self.filters == "own":
            expected = [(sent - each - 1) // count + 1 for each in range(count)]
            newest = [each + (due - 1) * count for each, due in enumerate(expected)]
        else:
            expected, newest = [sent] * count, [sent - 1] * count
        return {
            "wrong": self.connections.wrong(expected, newest),
            "missing": sum(expected) - self.connections.total,
            "lost": self.connections.lost,
        }


def connect(request: dict[str, Any]) -> tuple[Generator, dict[str, Any]]:
    """Open the connections and say what they cost the server."""
    pids, memory_pid, count = request["pids"], request["memory_pid"], request["connections"]
    feed, credentials = request["feed"], tuple(request["credentials"])
    conversations = [
        steps(request["dialect"], request["filters"], number, credentials)
        for number in range(count)
    ]
    connections = Connections(request["port"])
    rss, cpu, began = rss_bytes(memory_pid), cpu_seconds(pids), time.monotonic()
    connections.connect(conversations)
    took, used = time.monotonic() - began, cpu_seconds(pids) - cpu
    time.sleep(SETTLE)  # for a server's last allocations
    answer = {
        "seconds": took,
        "cpu": used,
        "rss_bytes": rss_bytes(memory_pid) - rss,
    }
    source = Source(feed)
    return Generator(connections, source, request["filters"], feed["form"], pids), answer


def _percentiles(latencies: list[int]) -> dict[str, float]:
    if not latencies:
        return {}
    latencies.sort()
    places = {"p50": 0.5, "p99": 0.99}
    return {name: latencies[int(len(latencies) * at)] / 1e6 for name, at in places.items()}


def main() -> None:
    """Answer requests until there are no more."""
    generator: Generator | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if generator is None:
                generator, answer = connect(request)
                gc.collect()
                gc.freeze()
                gc.disable()  # thousands of objects that stay, and none in cycles
            else:
                answer = generator.load(**request)
        except (OSError, TimeoutError) as error:
            answer = {"failed": str(error) or type(error).__name__}
        print(json.dumps(answer), flush=True)
    if generator is not None:
        generator.connections.close()
        generator.source.close()


if __name__ == "__main__":
    open_many_files()
    main()
