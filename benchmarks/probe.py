"""A publisher in a process of its own, whose acknowledgements nothing else delays.

    python -m benchmarks.probe NATS_URL RATE SECONDS

prints what they took as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from benchmarks.load import Latencies, make_events, publisher

URL_VARIABLE = "BENCH_NATS_URL"


class Probe:
    """A running probe; `latencies` is there once it has ended."""

    latencies: Latencies


@asynccontextmanager
async def probing(url: str, rate: int) -> AsyncIterator[Probe]:
    """Publish *rate* events a second while this lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.probe", str(rate)),
        env={**os.environ, URL_VARIABLE: url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    probe = Probe()
    try:
        await process.stdout.readline()  # it is connected
        yield probe
    finally:
        output, _ = await process.communicate(b"stop\n")
        probe.latencies = Latencies(**json.loads(output))


async def main(rate: int) -> None:
    async with publisher(os.environ[URL_VARIABLE]) as publishing, asyncio.TaskGroup() as tasks:
        events = make_events()
        await publishing.store_at_rate(events, rate, 0.5)
        publishing.take_latencies()
        told = tasks.create_task(asyncio.to_thread(sys.stdin.readline))
        print("connected", flush=True)
        while not told.done():
            await publishing.store_at_rate(events, rate, 0.2)
        print(json.dumps(asdict(publishing.take_latencies())))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
