"""Claim: 500 hostile connections leave the latency of 200 honest clients within 3 times its value.

    python -m benchmarks.hostile [--seconds 10] [--events 20000]

Each honest client has a user and a token of its own and gets one event a second, as its user
alone. How long that takes, from before it is published to when it is read, is measured without
and then with the crowd of `benchmarks.crowd`. All limits are at their defaults; addresses of
this machine are limited like any other.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.load import make_events, publisher
from benchmarks.stage import CLOCK, MeasuredGateway, log_server, open_many_files
from tests.support.publishing import TestPublisher, make_event
from tests.support.publishing import publisher as publisher_of
from tests.support.tokens import SECRET, token_for

HONEST = 200
_AT = re.compile(rb'"at":(\d+)')


class Honest(asyncio.Protocol):
    """A client that notes how old its events are."""

    def __init__(self, user: str, latencies: list[float]) -> None:
        self.is_open = asyncio.get_running_loop().create_future()
        self.is_lost = False
        self._user = user
        self._latencies = latencies
        self._transport: asyncio.Transport
        self._has_asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        token = token_for(self._user, expires_in=3600)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self._has_asked:
            self._has_asked = True
            request = b'{"op":"subscribe","sub":"a","channels":["all"]}'
            self._transport.write(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)
        if b'"op":"subscribed"' in data and not self.is_open.done():
            self.is_open.set_result(None)
        now = time.monotonic_ns()
        self._latencies.extend((now - int(at)) / 1e6 for at in _AT.findall(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


async def measure(events: TestPublisher, latencies: list[float], seconds: float) -> float:
    """Publish one event a second for each client; return the p99 of what they took, in ms."""
    latencies.clear()
    began, sent = CLOCK.monotonic(), 0
    while (passed := CLOCK.monotonic() - began) < seconds:
        while sent < passed * HONEST:
            user = f"honest-{sent % HONEST}"
            event = make_event(user=user, payload={"agentId": "a", "at": time.monotonic_ns()})
            await events.publish(event)
            sent += 1
        await CLOCK.sleep(0.001)
    await CLOCK.sleep(1)
    assert len(latencies) == sent, f"{sent} events were published, {len(latencies)} came"
    ordered = sorted(latencies)
    print(
        f"  p50 {ordered[len(ordered) // 2]:.1f} ms, p99 {ordered[len(ordered) * 99 // 100]:.1f} ms"
    )
    return ordered[len(ordered) * 99 // 100]


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[None]:
    """Let the crowd in while this lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.crowd", str(port), "1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
    finally:
        await process.communicate(b"")


@asynccontextmanager
async def honest_clients(port: int, latencies: list[float]) -> AsyncIterator[list[Honest]]:
    """Connect the honest ones."""
    loop, clients = asyncio.get_running_loop(), []
    for number in range(HONEST):
        client = Honest(f"honest-{number}", latencies)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
        await client.is_open
        clients.append(client)
    try:
        yield clients
    finally:
        for client in clients:
            client._transport.abort()


async def main(seconds: float, stored: int) -> int:
    """Measure; return the exit code."""
    async with log_server() as nats:
        settings = {
            "NATS_URL": nats.url("gateway"),
            "JWT_SECRET": SECRET,
            "LIMIT_LOOPBACK": "true",
        }
        gateway = MeasuredGateway(settings, Path(os.devnull))
        await gateway.start()
        latencies: list[float] = []
        try:
            async with publisher(nats.url("admin")) as filling:
                await filling.store(make_events(), stored)
            async with (
                publisher_of(nats) as events,
                honest_clients(gateway.port, latencies) as clients,
            ):
                print(f"{HONEST} honest clients alone:")
                await measure(events, latencies, 2)
                before = await measure(events, latencies, seconds)
                cpu = gateway.cpu_seconds()
                async with crowd(gateway.port):
                    await CLOCK.sleep(2)
                    print("with 500 hostile connections:")
                    during = await measure(events, latencies, seconds)
                used = (gateway.cpu_seconds() - cpu) / (seconds + 3)
                print(f"  the gateway used {used:.2f} of a core, {gateway.rss_mib():.0f} MiB")
                print(f"p99 with them: {during / before:.1f} times that without (bound 3)")
                assert not any(each.is_lost for each in clients), "an honest client was closed"
        finally:
            await gateway.kill()
    return 0 if during <= 3 * before else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--events", type=int, default=20_000)
    options = parser.parse_args()
    open_many_files()
    sys.exit(asyncio.run(main(options.seconds, options.events)))
