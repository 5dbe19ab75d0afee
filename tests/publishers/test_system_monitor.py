"""This machine's metrics, published in an interval that a test's clock drives."""

from __future__ import annotations

import asyncio
import time

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.publishers import EventPublisher, SystemMonitor, SystemPublisher
from tests.support.clock import ManualClock
from tests.support.log_reading import read_log
from tests.support.waiting import wait_until

SOURCE = "system-monitor"


async def test_the_machine_says_that_it_is_up_and_then_how_it_does(
    nats_server: NatsServer,
) -> None:
    clock = ManualClock()
    async with EventPublisher(SOURCE, nats_server.url(SOURCE)) as publisher:
        monitor = SystemMonitor(SystemPublisher(publisher), interval=5.0, clock=clock)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(monitor.run())
            for events in (2, 3, 4):
                await wait_until(lambda events=events: publisher.published == events)
                await clock.advance(4.5)
                assert publisher.published == events
                await clock.advance(0.51)
            running.cancel()
    status, *samples = [item.event for item in await read_log(nats_server)]
    assert (status.type, status.payload["status"]) == ("system:status", "up")
    assert status.payload["bootTime"] < time.time() * 1000
    assert {sample.type for sample in samples} == {"system:metrics"}
    for sample in samples:
        assert {"cpu", "memory", "disk", "load"} <= set(sample.payload)
        assert 0 <= sample.payload["cpu"]["percent"] <= 100
        assert sample.payload["memory"]["totalBytes"] > sample.payload["memory"]["usedBytes"] > 0


async def test_a_sample_that_cannot_be_published_is_counted_and_left_out(
    nats_server: NatsServer,
) -> None:
    async with EventPublisher(SOURCE, nats_server.url(SOURCE)) as publisher:
        monitor = SystemMonitor(SystemPublisher(publisher, timeout=0.1), interval=0.1)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(monitor.run())
            await wait_until(lambda: publisher.published > 2)
            await nats_server.stop()
            await wait_until(lambda: monitor.skipped > 2, "skipped samples")
            await nats_server.start()
            before = publisher.published
            await wait_until(lambda: publisher.published > before + 2, "samples again")
            running.cancel()
