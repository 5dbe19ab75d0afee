"""Claim: what a hole in the live feed costs depends on the hole, not on the number of filters.

    python -m benchmarks.holes

The gateway's live connection to NATS is broken while events are stored, with few and with many
filters in use; then everything must arrive, to the last event of the quietest filter. With no
events stored meanwhile, what remains is connecting and subscribing again; the difference is
what the hole costs.
"""

from __future__ import annotations

import asyncio

from benchmarks.clients import CountingClient, connect, subscribe, until_all_have
from benchmarks.load import Publisher, make_events, publisher
from benchmarks.stage import CLOCK, gateway_process, log_server, open_many_files
from tests.support.nats_proxy import NatsProxy, nats_proxy

CONNECTIONS = 100
QUIET = "user:u3"
QUIET_USER = ".u3."
HOLES = (0, 2_000, 8_000)


async def main() -> None:
    """Break the live feed over holes of several sizes, with 101 filters and with 10,001."""
    async with log_server() as nats, nats_proxy(nats, delay=0) as proxy:
        print(f"{'filters':>8} {'hole':>6} {'complete after':>15} {'gateway CPU':>12}")
        for each in (1, 100):
            async with (
                gateway_process(proxy.url("gateway")) as gateway,
                publisher(nats.url("admin")) as publishing,
            ):
                readers = await _connect_all(gateway.url, each)
                quiet = await connect(gateway.url, subscribe(QUIET))
                for hole in HOLES:
                    cpu = gateway.cpu_seconds()
                    took = await _break(proxy, publishing, hole, quiet)
                    used = gateway.cpu_seconds() - cpu
                    filters = CONNECTIONS * each + 1
                    print(f"{filters:>8,} {hole:>6,} {took:>13.2f} s {used:>10.2f} s")
                for reader in (*readers, quiet):
                    reader.cut()


async def _break(
    proxy: NatsProxy, publishing: Publisher, hole: int, quiet: CountingClient
) -> float:
    """Return how long it takes to be complete again after *hole* events and a quiet last one."""
    events, before = make_events(), quiet.events
    with proxy.broken():
        await publishing.store(((s, b) for s, b in events if QUIET_USER not in s), hole)
        last = next((s, b) for s, b in events if QUIET_USER in s)
        await publishing.store(iter([last]), 1)
    began = CLOCK.monotonic()
    await until_all_have([quiet], before + 1, within=60)
    return CLOCK.monotonic() - began


async def _connect_all(url: str, each: int) -> list[CountingClient]:
    """Return connections with *each* subscriptions of a filter of its own."""
    readers = []
    for number in range(CONNECTIONS):
        requests = [
            {**subscribe(f"session:s{number}-{place}"), "sub": str(place)} for place in range(each)
        ]
        readers.append(await connect(url, *requests))
    for reader in readers:
        await reader.has_subscribed(each)
    return readers


if __name__ == "__main__":
    open_many_files()
    asyncio.run(main())
