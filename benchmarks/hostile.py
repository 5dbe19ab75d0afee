"""Claim: 500 hostile connections leave honest ones within 3 times their undisturbed latency.

python -m benchmarks.hostile [--honest 200] [--hostile 500] [--rate 400] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.clients import CountingClient, connect, subscribe
from benchmarks.load import Latencies, Publisher, make_events, publisher
from benchmarks.stage import CLOCK, Stage, cpu_seconds, open_many_files, stage
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.schema.codec import encode_body
from jarvis_mesh.schema.event import Event, Metadata, new_id
from tests.support.tokens import SECRET, token_for

BOUND: Final = 3.0
"""What the p99 may be, in undisturbed ones."""
LOGGED: Final = 20_000
"""Events in the log before, which hostile clients replay."""
WARM_UP: Final = 2.0
"""Seconds before each measurement."""
_AT = re.compile(rb'"at":(\d+)')
_HOSTILE_USERS: Final = 10


class HonestClient(CountingClient):
    """Notes how long its events took."""

    def __init__(self, *requests: dict[str, Any], token: str) -> None:
        super().__init__(*requests, token=token)
        self.latencies: list[float] = []

    def data_received(self, data: bytes) -> None:
        now = CLOCK.monotonic()
        self.latencies += [now - int(at) / 1e6 for at in _AT.findall(data)]
        super().data_received(data)


async def main(honest: int, hostile: int, rate: int, seconds: float) -> bool:
    """Measure without and with hostile connections; say whether that is within the bound."""
    async with stage(**_settings()) as on, publisher(on.nats.url("admin")) as publishing:
        await publishing.store(make_events(_HOSTILE_USERS), LOGGED)
        clients = [
            await connect(on.gateway.url, subscribe(f"user:h{number}"), make=_honest(f"h{number}"))
            for number in range(honest)
        ]
        print(f"{honest} honest clients, {rate} events a second", flush=True)
        alone = await _measure(on, publishing, clients, rate, seconds)
        print(f"undisturbed: {alone}", flush=True)
        async with _attackers(on, hostile) as attack:
            beside = await _measure(on, publishing, clients, rate, seconds)
        print(f"beside {hostile} hostile connections: {beside}")
        for what, count in sorted(attack.items()):
            print(f"  {what}: {count:,.1f}")
    ratio = beside.p99 / alone.p99
    print(f"p99: {ratio:.1f} times the undisturbed one, at most {BOUND:g}")
    return ratio <= BOUND and not any(client.is_lost for client in clients)


def _settings() -> dict[str, str]:
    """Return the gateway's settings: defaults, with limits that count for loopback too."""
    settings = {"JWT_SECRET": SECRET}
    if "limit_loopback" in Settings.model_fields:
        settings["LIMIT_LOOPBACK"] = "true"
    return settings


def _honest(user: str) -> Any:
    token = token_for(user, expires_in=3_600)
    return lambda *requests: HonestClient(*requests, token=token)


async def _measure(
    on: Stage, publishing: Publisher, clients: list[Any], rate: int, seconds: float
) -> Latencies:
    """Return how late events come to the clients."""
    events = _events(len(clients))
    await publishing.store_at_rate(events, rate, WARM_UP)
    for client in clients:
        client.latencies.clear()
    used = {pid: cpu_seconds(pid) for pid in (on.gateway.pid, on.nats.pid)}
    await publishing.store_at_rate(events, rate, seconds)
    gateway, nats = (cpu_seconds(pid) - before for pid, before in used.items())
    print(f"  CPU: gateway {gateway / seconds:.0%}, NATS {nats / seconds:.0%} of a core")
    return Latencies.of([each for client in clients for each in client.latencies])


def _events(users: int) -> Any:
    """Yield subject and body of events that say when they were published, in microseconds."""
    for number in itertools.count():
        now = CLOCK.time_ms()
        event = Event(
            id=new_id(now),
            type="agent:created",
            source="agent-service",
            timestamp=now,
            payload={"agentId": "a", "at": int(CLOCK.monotonic() * 1e6)},
            metadata=Metadata(user=f"h{number % users}", entity="a"),
        )
        yield event.subject, encode_body(event)


@asynccontextmanager
async def _attackers(on: Stage, count: int) -> AsyncIterator[dict[str, float]]:
    """Have *count* hostile connections meanwhile; what they did is known afterwards."""
    grants = (None, ["all"])
    tokens = [
        token_for(
            f"u{number % _HOSTILE_USERS}", subscribe=grants[number // 4 % 2], expires_in=3_600
        )
        for number in range(count)
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.hostile_clients", str(on.gateway.port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    done: dict[str, float] = {}
    try:
        process.stdin.write(json.dumps(tokens).encode() + b"\n")
        await process.stdout.readline()  # it attacks
        yield done
    finally:
        output, _ = await process.communicate(b"stop\n")
        done |= json.loads(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--honest", type=int, default=200)
    parser.add_argument("--hostile", type=int, default=500)
    parser.add_argument("--rate", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    open_many_files()
    sys.exit(not asyncio.run(main(options.honest, options.hostile, options.rate, options.seconds)))
