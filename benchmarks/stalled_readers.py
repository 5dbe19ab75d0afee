"""Claim: a reader that takes nothing costs the gateway little memory, and loses nothing.

python -m benchmarks.stalled_readers [--clients 1000] [--rate 1000] [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.clients import CountingClient, connect, subscribe, until_all_have
from benchmarks.load import make_events, publisher
from benchmarks.stage import CLOCK, Stage, open_many_files, stage


async def main(clients: int, rate: int, seconds: float) -> None:
    """Stall *clients* for *seconds* at *rate* events a second, then let them read."""
    async with stage() as on, publisher(on.nats.url("admin")) as publishing:
        events = make_events()
        readers = await _connect_all(on, clients)
        await publishing.store(events, 2_000)  # caches and pools are warm before "idle"
        await until_all_have(readers, 2_000, within=60)
        await CLOCK.sleep(2)
        idle = on.gateway.rss_mib()
        for reader in readers:
            reader.stall()
        highest = idle
        async with asyncio.TaskGroup() as tasks:
            storing = tasks.create_task(publishing.store_at_rate(events, rate, seconds))
            while not storing.done():
                highest = max(highest, on.gateway.rss_mib())
                await asyncio.wait({storing}, timeout=0.5)
        stored = storing.result()
        print(f"{clients} clients, {stored:,} events stored while they took nothing")
        print(f"lagging: {on.gateway.metric('mesh_lagging'):.0f}")
        print(f"gateway memory: idle {idle:.1f} MiB, highest {highest:.1f} MiB")
        print(f"  {(highest - idle) * 1024 / clients:.1f} KiB for each stalled client")
        await _drain(on, readers, stored)


async def _drain(on: Stage, readers: list[CountingClient], stored: int) -> None:
    began, cpu = CLOCK.monotonic(), on.gateway.cpu_seconds()
    for reader in readers:
        reader.read_on()
    await until_all_have(readers, 2_000 + stored, within=600)
    took, used = CLOCK.monotonic() - began, on.gateway.cpu_seconds() - cpu
    deliveries = sum(reader.events for reader in readers) - 2_000 * len(readers)
    print(f"all caught up in {took:.1f} s: {deliveries / took:,.0f} deliveries/s")
    print(f"  {used / deliveries * 1e6:.2f} µs of the gateway's CPU for each")
    print(f"gateway memory afterwards: {on.gateway.rss_mib():.1f} MiB")
    print(f"too many or too few: {sum(reader.events != 2_000 + stored for reader in readers)}")


async def _connect_all(on: Stage, clients: int) -> list[CountingClient]:
    return [await connect(on.gateway.url, subscribe("all")) for _ in range(clients)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    open_many_files()
    asyncio.run(main(options.clients, options.rate, options.seconds))
