"""Claim: checking a token makes a handshake little dearer.

    python -m benchmarks.handshakes [--clients 2000]

The gateway's CPU for a WebSocket handshake with one subscription, without authentication and with
a token (HS256) in its header; side by side, the two gateways taking turns.
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.clients import CountingClient, connect, subscribe
from benchmarks.stage import MeasuredGateway, gateway_process, log_server, open_many_files
from tests.support.tokens import SECRET, token_for

ROUNDS = 4
UNLIMITED = {"MAX_CONNECTIONS_PER_USER": "100000", "MESSAGES_PER_SECOND": "100000"}
"""All are one user's here."""


async def main(clients: int) -> None:
    """Measure, and print what a handshake takes."""
    async with (
        log_server() as nats,
        gateway_process(nats.url("gateway")) as plain,
        gateway_process(nats.url("gateway"), JWT_SECRET=SECRET, **UNLIMITED) as secured,
    ):
        used = {"without authentication": 0.0, "with a token": 0.0}
        for _ in range(ROUNDS):
            used["without authentication"] += await _cpu(plain, clients // ROUNDS, None)
            token = token_for("alice", subscribe=["all"], expires_in=3_600)
            used["with a token"] += await _cpu(secured, clients // ROUNDS, token)
        for which, seconds in used.items():
            print(f"{which}: {seconds / clients * 1e6:.0f} µs a handshake")
        plainly, safely = used.values()
        print(f"{safely / plainly:.2f} times")


async def _cpu(gateway: MeasuredGateway, clients: int, token: str | None) -> float:
    """Return the CPU time that so many handshakes took; then the clients go."""
    before = gateway.cpu_seconds()
    opened = [
        await connect(
            gateway.url,
            subscribe("event:agent:**"),
            make=lambda *requests: CountingClient(*requests, token=token),
        )
        for _ in range(clients)
    ]
    took = gateway.cpu_seconds() - before
    for client in opened:
        client.cut()
    return took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    options = parser.parse_args()
    open_many_files()
    asyncio.run(main(options.clients))
