"""Claim: when everybody comes back at once, all recover soon and publishers don't notice.

    python -m benchmarks.storm [--clients 2000] [--behind 500]

The gateway is killed, *behind* events are stored, it is started again, and all clients come back
with their cursors in the same moment, with overlapping filters. Meanwhile a publisher goes on at
200 events a second; how long its acknowledgements take is compared with before.
"""

from __future__ import annotations

import argparse
import asyncio
import os

from benchmarks.clients import CountingClient, connect, subscribe, until_all_have
from benchmarks.load import make_events, publisher
from benchmarks.probe import probing
from benchmarks.stage import CLOCK, Stage, open_many_files, stage

RATE = 200


def channels_of(number: int) -> tuple[str, ...]:
    """Return what a client is for: everything, in one of four ways."""
    return (
        ("all",),
        ("event:agent:**",),
        ("source:agent-service",),
        (f"user:u{number}", f"session:s{number}", "event:agent:status"),
    )[number % 4]


async def main(clients: int, behind: int) -> None:
    """Let *clients* come back at once, each *behind* events behind."""
    async with stage() as on, publisher(on.nats.url("admin")) as publishing:
        events, url = make_events(), on.nats.url("admin")
        await publishing.store(events, 20_000)
        async with probing(url, RATE) as undisturbed:
            await CLOCK.sleep(10)
        cursor = await _cursor(on)
        await on.gateway.kill()
        await publishing.store(events, behind)
        await on.gateway.start()
        idle = on.gateway.rss_mib()
        async with probing(url, RATE) as disturbed:
            os.nice(10)  # the clients' CPU is other machines' in life: it shouldn't count here
            began, cpu = CLOCK.monotonic(), on.gateway.cpu_seconds()
            readers = await _come_back(on, clients, cursor)
            highest = await until_all_have(readers, behind, within=120, watch=on.gateway.rss_mib)
            took, used = CLOCK.monotonic() - began, on.gateway.cpu_seconds() - cpu
        before, during = undisturbed.latencies, disturbed.latencies
        deliveries = sum(reader.events for reader in readers)
        print(f"{clients} clients, each {behind:,} events behind: all recovered in {took:.1f} s")
        print(f"  {used / clients * 1e3:.2f} ms of the gateway's CPU for each client,")
        print(f"  {used / deliveries * 1e6:.2f} µs for each event")
        print(f"log reads: {on.gateway.metric('mesh_log_reads_total'):.0f}")
        print(f"gateway memory: {idle:.0f} MiB at its start, highest {highest:.0f} MiB")
        print(f"acknowledgements before: {before}")
        print(f"acknowledgements during: {during}")
        print(f"  p99 {during.p99 / before.p99:.1f} times that before")


async def _cursor(on: Stage) -> str:
    client = await connect(on.gateway.url, subscribe("all"))
    client.cut()
    return client.cursor


async def _come_back(on: Stage, clients: int, cursor: str) -> list[CountingClient]:
    async with asyncio.TaskGroup() as tasks:
        connecting = [
            tasks.create_task(
                connect(on.gateway.url, subscribe(*channels_of(number), since=cursor))
            )
            for number in range(clients)
        ]
    return [each.result() for each in connecting]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--behind", type=int, default=500)
    options = parser.parse_args()
    open_many_files()
    asyncio.run(main(options.clients, options.behind))
