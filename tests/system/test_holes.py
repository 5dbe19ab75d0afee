"""Copies that never came are noticed, and what they were copies of arrives all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.gateway import RunningGateway, gateway
from tests.support.nats_proxy import NatsProxy, nats_proxy
from tests.support.plain_client import connect
from tests.support.publishing import TestPublisher, make_event

KNOWABLE = 3.0
"""Seconds within which a lost event arrives once the loss can be known."""


@pytest.fixture
async def proxy(nats_server: NatsServer) -> AsyncIterator[NatsProxy]:
    async with nats_proxy(nats_server, delay=0) as running:
        yield running


@pytest.fixture
async def behind(nats_server: NatsServer, proxy: NatsProxy) -> AsyncIterator[RunningGateway]:
    """A gateway behind the proxy."""
    async with gateway(nats_server, nats_url=proxy.url("gateway")) as running:
        await running.ready()
        yield running


async def resyncs(mesh: RunningGateway, reason: str) -> float:
    """Return how often the live feed was held for *reason*."""
    _, text = await mesh.get("/metrics")
    name = f'mesh_resyncs_total{{reason="{reason}"}} '
    return next(float(line[len(name) :]) for line in text.splitlines() if line.startswith(name))


async def test_where_everything_is_received_the_last_event_of_a_quiet_filter_is_not_lost(
    proxy: NatsProxy, behind: RunningGateway, events: TestPublisher
) -> None:
    """The next copy, at the latest a tick, shows that one was left out."""
    async with connect(behind.url) as everything, connect(behind.url) as quiet:
        await everything.subscribe("all")
        await quiet.subscribe("user:quiet")
        lost = make_event(user="quiet")
        proxy.drop_next(f"live.{lost.subject}")
        seq = await events.publish(lost)
        # Knowable with the next copy: a tick, due within two seconds.
        for client in (everything, quiet):
            assert (await client.expect("event", within=2 + KNOWABLE))["seq"] == seq
        assert proxy.dropped == 2
        assert await resyncs(behind, "sequence") == 1


async def test_a_live_connection_that_falls_silent_is_replaced(
    proxy: NatsProxy, behind: RunningGateway, events: TestPublisher
) -> None:
    """A cable is cut: the socket stays open, and nothing comes any more."""
    async with connect(behind.url) as quiet:
        await quiet.subscribe("user:quiet")
        proxy.silence_live()
        seq = await events.publish(user="quiet")
        # Knowable when a tick that is due hasn't come for two seconds.
        assert (await quiet.expect("event", within=3 + KNOWABLE))["seq"] == seq
        assert await resyncs(behind, "tick") == 1
        seq = await events.publish(user="quiet")
        assert (await quiet.expect("event"))["seq"] == seq


async def test_no_cursor_passes_an_event_that_was_not_sent(
    proxy: NatsProxy, nats_server: NatsServer, events: TestPublisher
) -> None:
    """Heartbeats go on while copies don't come, and stay before the first one that is lacking."""
    async with gateway(nats_server, nats_url=proxy.url("gateway"), heartbeat=0.1) as mesh:
        await mesh.ready()
        async with connect(mesh.url) as client:
            await client.subscribe("user:quiet")
            proxy.silence_live()
            seq = await events.publish(user="quiet")
            await events.publish_many(5)
            while True:
                message = await client.next()
                if message["op"] == "event":
                    break
                assert message["op"] == "heartbeat"
                assert int(message["cursor"].split(":")[1]) < seq


async def test_a_hole_is_repaired_for_all_who_are_connected_at_once(
    proxy: NatsProxy, behind: RunningGateway, events: TestPublisher
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(_expects_its_own(behind, number))
        await asyncio.wait({tasks.create_task(_publish_in_the_dark(proxy, behind, events))})


async def _publish_in_the_dark(
    proxy: NatsProxy, mesh: RunningGateway, events: TestPublisher
) -> None:
    async with asyncio.timeout(10):
        while "mesh_subscriptions 10.0" not in (await mesh.get("/metrics"))[1]:
            pass
    with proxy.broken():
        for number in range(10):
            await events.publish(user=f"u{number}")


async def _expects_its_own(mesh: RunningGateway, number: int) -> None:
    async with connect(mesh.url) as client:
        await client.subscribe(f"user:u{number}")
        event = await client.expect("event")
        assert event["event"]["metadata"]["user"] == f"u{number}"
