"""The Python SDK against a real gateway: whatever breaks, each event comes once and in order."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.client import GapNotice, Mesh, Subscription
from jarvis_mesh.schema import Event, MeshError
from jarvis_mesh.schema.errors import ChannelError
from tests.support.gateway import RunningGateway, gateway
from tests.support.publishing import TestPublisher
from tests.support.waiting import wait_until


@pytest.fixture(params=["cbor", "json"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def take(subscription: Subscription, count: int) -> list[Event]:
    """Return the next *count* events."""
    taken: list[Event] = []
    async with asyncio.timeout(30):
        async for event in subscription:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


def numbers(taken: list[Event]) -> list[int]:
    return [event.payload["n"] for event in taken]


async def test_events_come_live_and_replayed_and_the_cursor_continues(
    mesh: RunningGateway, events: TestPublisher, form: str
) -> None:
    await events.publish_many(600, entity="e")
    async with Mesh.connect(mesh.url, format=form) as client:  # type: ignore[arg-type]
        subscription = client.subscribe("entity:e", since="start")
        assert numbers(await take(subscription, 400)) == list(range(400))
        cursor = subscription.cursor
        subscription.close()  # what it leaves untaken would pause the other one
        again = client.subscribe("entity:e", since=cursor)
        assert numbers(await take(again, 200)) == list(range(400, 600))
        await events.publish_many(5, entity="e")
        assert numbers(await take(again, 5)) == list(range(5))


async def test_last_brings_the_newest_of_each_subject(
    mesh: RunningGateway, events: TestPublisher, form: str
) -> None:
    for entity in "abc":
        await events.publish_many(3, entity=entity)
    async with Mesh.connect(mesh.url, format=form) as client:  # type: ignore[arg-type]
        subscription = client.subscribe("all", since="last")
        newest = await take(subscription, 3)
        assert [event.metadata.entity for event in newest] == ["a", "b", "c"]
        assert numbers(newest) == [2, 2, 2]
        await events.publish_many(1, entity="a")
        assert numbers(await take(subscription, 1)) == [0]


async def test_a_gateway_that_restarts_costs_nothing_but_time(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    async with gateway(nats_server) as first:
        await first.ready()
        port = first.settings.port
        client = Mesh.connect(first.url)
        async with client:
            subscription = client.subscribe("all")
            await subscription.ready()
            await events.publish_many(10)
            assert len(await take(subscription, 10)) == 10
            first.drain()
            await wait_until(lambda: not client.is_connected, "the end of the first gateway")
            await events.publish_many(300)
            await wait_until(lambda: not first.is_listening(), "its port")
            async with gateway(nats_server, port=port) as second:
                await second.ready()
                await wait_until(lambda: client.is_connected, "the second gateway", within=25)
                assert numbers(await take(subscription, 300)) == list(range(300))


async def test_nats_that_restarts_costs_nothing_but_time(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    async with Mesh.connect(mesh.url) as client:
        subscription = client.subscribe("all")
        await subscription.ready()
        await events.publish_many(5)
        nats_server.kill()
        await nats_server.wait()
        await nats_server.start()
        await mesh.ready()
        await events.publish_many(5)
        assert numbers(await take(subscription, 10)) == [*range(5), *range(5)]


async def test_a_slow_reader_gets_everything_in_the_end(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    """What the gateway won't keep for it comes from the log, over the same connection."""
    payload = {"agentId": "a", "noise": os.urandom(20_000).hex()}
    async with (
        gateway(nats_server) as mesh,
        Mesh.connect(mesh.url, format="json", timeout=10) as client,
    ):
        subscription = client.subscribe("all")
        iterator = aiter(subscription)
        await subscription.ready()
        for number in range(1500):
            await events.publish(payload={**payload, "n": number})
        taken = []
        async with asyncio.timeout(60):
            while len(taken) < 1500:
                taken.append((await anext(iterator)).payload["n"])
        assert taken == list(range(1500))


async def test_what_the_log_no_longer_has_reaches_the_user_as_a_gap(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    seqs = await events.publish_many(6)
    gaps: list[GapNotice] = []
    async with Mesh.connect(mesh.url) as client:
        subscription = client.subscribe("all", since="start")
        await take(subscription, 1)
        cursor = subscription.cursor
        subscription.close()
        await events.jetstream.purge_stream("EVENTS", seq=seqs[4])
        client.on("gap", gaps.append)
        again = client.subscribe("all", since=cursor)
        assert numbers(await take(again, 2)) == [4, 5]
    assert [gap.reason for gap in gaps] == ["expired"]


async def test_listeners_and_publishing(mesh: RunningGateway, form: str) -> None:
    heard: list[Event] = []
    async with Mesh.connect(mesh.url, format=form) as client:  # type: ignore[arg-type]
        client.on("event:agent:status", heard.append)
        await client.subscribe("event:agent:**").ready()
        published = await client.publish("agent:status", {"agentId": "a", "status": "idle"})
        await wait_until(lambda: heard, "the event")
        assert heard[0].id == published.id
        assert heard[0].source == "client"
        client.unsubscribe("event:agent:**")
        with pytest.raises(MeshError, match="required field status"):
            await client.publish("agent:status", {"agentId": "a"})


async def test_a_refused_channel_raises_where_it_is_used(mesh: RunningGateway) -> None:
    async with Mesh.connect(mesh.url) as client:
        with pytest.raises(ChannelError, match="nonsense"):
            await client.subscribe("nonsense:x").ready()
        subscription = client.subscribe("all", since=timedelta(seconds=5))
        await subscription.ready()
