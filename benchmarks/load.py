"""Publishing for benchmarks: events stored as fast as the log takes them, and a probe."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.client import Client

from benchmarks.stage import CLOCK
from jarvis_mesh.schema.codec import encode_body
from jarvis_mesh.schema.event import Event, Metadata, new_id

WINDOW = 1_000
_NOISE = [os.urandom(75).hex() for _ in range(64)]


def make_events(users: int = 1_000) -> Iterator[tuple[str, bytes]]:
    """Yield subject and body of events of about 300 bytes without end, for *users* in turn."""
    for number in itertools.count():
        now = CLOCK.time_ms()
        event = Event(
            id=new_id(now),
            type="agent:status",
            source="agent-service",
            timestamp=now,
            payload={"agentId": f"a{number % 50}", "status": _NOISE[number % 64]},
            metadata=Metadata(user=f"u{number % users}", entity=f"a{number % 50}"),
        )
        yield event.subject, encode_body(event)


class Publisher(Client):
    """A connection that hands every acknowledgement over as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.acked = 0
        self.latencies: list[float] = []
        self._sent_at: dict[bytes, float] = {}

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self.acked += 1
        if (sent_at := self._sent_at.pop(bytes(subject), None)) is not None:
            self.latencies.append(CLOCK.monotonic() - sent_at)

    async def store(self, events: Iterator[tuple[str, bytes]], count: int) -> None:
        """Store *count* events, as fast as the log takes them."""
        goal = self.acked + count
        for sent, (subject, body) in zip(range(goal - count, goal), events, strict=False):
            await self.publish(subject, body, reply="_INBOX.bench.ack")
            while sent - self.acked > WINDOW:
                await CLOCK.sleep(0.001)
        while self.acked < goal:
            await CLOCK.sleep(0.001)

    async def store_at_rate(
        self, events: Iterator[tuple[str, bytes]], rate: int, seconds: float
    ) -> int:
        """Store *rate* events a second; note how long each acknowledgement took."""
        started, sent = CLOCK.monotonic(), 0
        while (elapsed := CLOCK.monotonic() - started) < seconds:
            while sent < elapsed * rate:
                subject, body = next(events)
                reply = f"_INBOX.bench.{sent}"
                self._sent_at[reply.encode()] = CLOCK.monotonic()
                await self.publish(subject, body, reply=reply)
                sent += 1
            await CLOCK.sleep(0.001)
        while self._sent_at:
            await CLOCK.sleep(0.001)
        return sent

    def take_latencies(self) -> Latencies:
        """Return how long acknowledgements took since the last call."""
        taken, self.latencies = self.latencies, []
        return Latencies.of(taken)


@dataclass(frozen=True)
class Latencies:
    """Milliseconds."""

    count: int
    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latencies:
        cuts = statistics.quantiles(seconds, n=100)
        return cls(len(seconds), cuts[49] * 1e3, cuts[98] * 1e3, max(seconds) * 1e3)

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, worst {self.worst:.1f} ms"


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[Publisher]:
    """Connect as the user in *url*."""
    client = Publisher()
    await client.connect(url, inbox_prefix=b"_INBOX.bench")
    await client.subscribe("_INBOX.bench.>")
    try:
        yield client
    finally:
        await client.close()
