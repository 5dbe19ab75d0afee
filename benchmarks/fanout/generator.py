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
from typing import Any

from benchmarks.fanout.accounting import cpu_seconds, machine_cpu_seconds, rss_bytes
from benchmarks.fanout.connections import Connections
from benchmarks.fanout.dialects import Filters, rooms, steps
from benchmarks.fanout.events import Form, Template, make_event
from benchmarks.fanout.paces import ClosedPace, SteadyPace
from benchmarks.fanout.source import Source
from benchmarks.stage import open_many_files

GIVE_UP_AFTER = 16.0
"""Seconds after the last event was published."""
SETTLE = 0.3
"""Seconds in which an event too many would come."""
_BURST = 256
"""Events published before the connections have their turn again."""


class Generator:
    """The connections to one server, and the source of its events."""

    def __init__(
        self,
        connections: Connections,
        source: Source,
        filters: Filters,
        form: Form,
        pids: list[int],
    ) -> None:
        self.connections = connections
        self.source = source
        self._count = len(connections)
        self._is_own = filters == "own"
        self._filters = filters
        self._form = form
        self._pids = pids
        self._templates: list[Template] = []
        self._sent = 0
        self._latencies: list[int] | None = None

    def load(self, rate: float | None, seconds: float, body_bytes: int) -> dict[str, Any]:
        """Publish for *seconds* and say what came of it.

        Args:
            rate: Events a second; `None` is a closed loop.
        """
        users = range(self._count if self._is_own else 1)
        self._templates = [self._template(f"u{user}", body_bytes) for user in users]
        self._latencies = None if rate is None else []
        self._sent = 0
        self.connections.reset()
        pace = ClosedPace(self._count, body_bytes) if rate is None else SteadyPace(rate)
        used = self._run(pace, seconds)
        return {
            "events": self._sent,
            "deliveries": self.connections.total,
            **used,
            **_percentiles(self._latencies or []),
            **self._check(),
        }

    def _run(self, pace: SteadyPace | ClosedPace, seconds: float) -> dict[str, float]:
        """Publish, take all that comes of it, and return what that took."""
        before = self._used()
        self._publish(pace, seconds)
        self._take_the_rest()
        return {name: now - before[name] for name, now in self._used().items()}

    def _used(self) -> dict[str, float]:
        return {
            "wall": time.monotonic(),
            "cpu": cpu_seconds(self._pids),
            "own_cpu": time.process_time(),
            "machine_cpu": machine_cpu_seconds(),
        }

    def _template(self, user: str, body_bytes: int) -> Template:
        return Template(make_event(user, body_bytes), self._form, rooms(self._filters, user))

    def _publish(self, pace: SteadyPace | ClosedPace, seconds: float) -> None:
        began, look_at = time.monotonic(), 0.0
        while (elapsed := time.monotonic() - began) < seconds:
            if elapsed >= look_at:
                look_at = elapsed + pace.look_every
                if (due := pace.due(elapsed, self._sent, self.connections)) > 0:
                    self._send(min(due, _BURST))
                self.source.service()
            self.connections.take(pace.wait(elapsed, self._sent), self._latencies)

    def _send(self, count: int) -> None:
        now, templates = time.monotonic_ns(), self._templates
        numbers = range(self._sent, self._sent + count)
        self._sent += count
        kinds = len(templates)
        self.source.publish(b"".join(templates[n % kinds].publish(n, now) for n in numbers))

    def _take_the_rest(self) -> None:
        expected = self._sent * (1 if self._is_own else self._count)
        deadline = time.monotonic() + GIVE_UP_AFTER
        while self.connections.total < expected and time.monotonic() < deadline:
            self.source.service()
            self.connections.take(0.05, self._latencies)

    def _check(self) -> dict[str, int]:
        """Return on how many connections the count or the last event is not what it should be."""
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            self.connections.take(0.05)
        count, sent = self._count, self._sent
        if self._is_own:
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
