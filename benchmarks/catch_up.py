"""Claim: catching up is cheap, and cheaper for each the more catch up together.

    python -m benchmarks.catch_up [--events 100000] [--clients 500]

One client, and then many at once, read the whole log from its start.
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.clients import connect, subscribe, until_all_have
from benchmarks.load import make_events, publisher
from benchmarks.stage import CLOCK, Stage, open_many_files, stage


async def main(events: int, clients: int) -> None:
    """Let 1 and then *clients* catch up *events*."""
    async with stage() as on, publisher(on.nats.url("admin")) as publishing:
        await publishing.store(make_events(), events)
        print(f"{'clients':>8} {'seconds':>8} {'deliveries/s':>13} {'CPU s':>7} {'µs each':>8}")
        for count in (1, clients):
            await _measure(on, count, events)


async def _measure(on: Stage, clients: int, events: int) -> None:
    began, cpu = CLOCK.monotonic(), on.gateway.cpu_seconds()
    request = subscribe("all", since="start")
    readers = [await connect(on.gateway.url, request) for _ in range(clients)]
    await until_all_have(readers, events, within=600)
    took, used = CLOCK.monotonic() - began, on.gateway.cpu_seconds() - cpu
    each = used / clients / events * 1e6
    rate = clients * events / took
    print(f"{clients:>8} {took:>8.1f} {rate:>13,.0f} {used:>7.1f} {each:>8.2f}")
    for reader in readers:
        reader.cut()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=500)
    options = parser.parse_args()
    open_many_files()
    asyncio.run(main(options.events, options.clients))
