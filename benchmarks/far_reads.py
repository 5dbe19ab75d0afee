"""Claim: who replays a sparse filter from the log's start in a loop doesn't slow publishers.

python -m benchmarks.far_reads [--events 250000] [--replays 4] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.clients import connect, subscribe
from benchmarks.load import Latencies, make_events, publisher
from benchmarks.probe import probing
from benchmarks.stage import CLOCK, Stage, stage

RATE = 200
FILTERS = {
    "one event in 1,000 (user:u7)": ("user:u7",),
    "one in 50 (entity:a7)": ("entity:a7",),
    "two users (user:u7, user:u8)": ("user:u7", "user:u8"),
    "nothing (user:nobody)": ("user:nobody",),
    "everything (all)": ("all",),
}


async def main(events: int, replays: int, seconds: float) -> None:
    """Measure acknowledgements beside *replays* loops of each kind."""
    async with stage() as on:
        async with publisher(on.nats.url("admin")) as publishing:
            await publishing.store(make_events(), events)
        before = await _beside(on, (), 0, seconds)
        print(f"{events:,} events, {replays} replays in a loop at a time, {RATE} publishes/s")
        print(f"{'undisturbed':<32} {before[0]}")
        for name, channels in FILTERS.items():
            latencies, rounds = await _beside(on, channels, replays, seconds)
            times = latencies.p99 / before[0].p99
            print(f"{name:<32} {latencies}; p99 {times:.1f} times, {rounds} replays ended")


async def _beside(
    on: Stage, channels: tuple[str, ...], replays: int, seconds: float
) -> tuple[Latencies, int]:
    rounds: list[int] = []
    async with (
        probing(on.nats.url("admin"), RATE) as probe,
        asyncio.TaskGroup() as tasks,
    ):
        loops = [tasks.create_task(_replay_again(on, channels, rounds)) for _ in range(replays)]
        await CLOCK.sleep(seconds)
        for each in loops:
            each.cancel()
    return probe.latencies, len(rounds)


async def _replay_again(on: Stage, channels: tuple[str, ...], rounds: list[int]) -> None:
    while True:
        client = await connect(on.gateway.url, subscribe(*channels, since="start"))
        try:
            await client.is_live
            rounds.append(client.events)
        finally:
            client.cut()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=250_000)
    parser.add_argument("--replays", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    asyncio.run(main(options.events, options.replays, options.seconds))
