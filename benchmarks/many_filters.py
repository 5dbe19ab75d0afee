"""Claim: what a filter costs doesn't depend on how many others there are.

    python -m benchmarks.many_filters

Connections hold 1,000 and 10,000 subscriptions, each with a `user:` filter of its own. For both
numbers: the gateway's memory for each, its CPU for opening and for dropping a thousand more, and
the CPU of gateway and nats-server for an event that one of them is for, of 2,000 a second.
"""

from __future__ import annotations

import asyncio

from benchmarks.clients import CountingClient, connect, subscribe
from benchmarks.fanout.accounting import cpu_seconds
from benchmarks.load import make_events, publisher
from benchmarks.stage import CLOCK, Stage, open_many_files, stage

COUNTS = (1_000, 10_000)
EACH = 100
"""Subscriptions of one connection: as many as it may have."""
MORE = 1_000
RATE = 2_000
SECONDS = 5.0


async def main() -> None:
    """Print a line for each number of filters."""
    print(f"{'filters':>8} {'memory':>10} {'subscribe':>11} {'unsubscribe':>12} {'event':>9}")
    for count in COUNTS:
        async with stage() as on:
            await _measure(on, count)


async def _measure(on: Stage, count: int) -> None:
    idle = on.gateway.rss_mib()
    readers = await _subscribe(on, 0, count)
    kib = (on.gateway.rss_mib() - idle) * 1024 / count
    before = _cpu(on)
    more = await _subscribe(on, count, MORE)
    subscribed = _cpu(on)
    for reader in more:
        reader.cut()
    while on.gateway.metric("mesh_subscriptions") > count:
        await CLOCK.sleep(0.1)
    unsubscribed = _cpu(on)
    event = await _event(on, readers)
    print(
        f"{count:>8,} {kib:>6.1f} KiB {(subscribed - before) / MORE * 1e6:>8.0f} µs"
        f" {(unsubscribed - subscribed) / MORE * 1e6:>9.0f} µs {event * 1e6:>6.0f} µs"
    )
    for reader in readers:
        reader.cut()


async def _subscribe(on: Stage, first: int, count: int) -> list[CountingClient]:
    """Return connections with *count* subscriptions, for users from number *first* on."""
    readers = []
    for start in range(first, first + count, EACH):
        requests = [
            {**subscribe(f"user:u{user}"), "sub": str(user)} for user in range(start, start + EACH)
        ]
        readers.append(await connect(on.gateway.url, *requests))
        await readers[-1].has_subscribed(EACH)
    return readers


async def _event(on: Stage, readers: list[CountingClient]) -> float:
    """Return the CPU of the servers for an event to one of the first thousand users."""
    async with publisher(on.nats.url("admin")) as publishing:
        before = _cpu(on)
        sent = await publishing.store_at_rate(make_events(users=min(COUNTS)), RATE, SECONDS)
        used = _cpu(on) - before
    async with asyncio.timeout(10):
        while sum(reader.events for reader in readers) < sent:
            await CLOCK.sleep(0.01)
    return used / sent


def _cpu(on: Stage) -> float:
    return cpu_seconds([on.gateway.pid, on.nats.pid])


if __name__ == "__main__":
    open_many_files()
    asyncio.run(main())
