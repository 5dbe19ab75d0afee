"""A client that is too slow is caught up from the log, and costs nobody anything."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.gateway.tail import Tail
from jarvis_mesh.gateway.websocket_protocol import WebSocketProtocol
from jarvis_mesh.schema import SystemClock
from tests.support.gateway import RunningGateway, gateway
from tests.support.http_client import NDJSON, SSE, ask, next_block, next_event, next_line
from tests.support.plain_client import Message, PlainClient, connect
from tests.support.publishing import TestPublisher

NOISE = os.urandom(5_000).hex()
MANY = 150
"""Events with noise: 1.5 MB, more than the sockets between two programs take."""


@asynccontextmanager
async def slow_client(mesh: RunningGateway, form: str | None = None) -> AsyncIterator[PlainClient]:
    """Connect a client that takes nothing from its small socket until it is asked to."""
    address = urlsplit(mesh.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.connect((address.hostname, address.port))
    async with connect(mesh.url, form, sock=sock, max_queue=1, ping_interval=None) as client:
        yield client


async def publish_noise(events: TestPublisher, count: int = MANY, **fields: str) -> list[int]:
    return [
        await events.publish(payload={"agentId": "a", "n": n, "noise": NOISE}, **fields)
        for n in range(count)
    ]


async def lagging(mesh: RunningGateway) -> float:
    """Return how many clients are being caught up."""
    _, text = await mesh.get("/metrics")
    line = next(line for line in text.splitlines() if line.startswith("mesh_lagging "))
    return float(line.split()[1])


async def until_lagging(mesh: RunningGateway, count: int) -> None:
    async with asyncio.timeout(10):
        while await lagging(mesh) != count:
            pass


async def read_until(client: PlainClient, op: str, **fields: object) -> list[Message]:
    """Return every message up to the one wanted."""
    found: list[Message] = []
    async with asyncio.timeout(30):
        while True:
            found.append(await client.next())
            if found[-1]["op"] == op and fields.items() <= found[-1].items():
                return found


def is_for_connection(message: Message) -> bool:
    return message["op"] == "live" and "sub" not in message


@pytest.mark.parametrize("form", ["mesh.v1.json", "mesh.v1.cbor"])
async def test_a_slow_reader_is_told_and_gets_everything_and_others_dont_notice(
    mesh: RunningGateway, events: TestPublisher, form: str
) -> None:
    async with connect(mesh.url) as fast, slow_client(mesh, form) as slow:
        await fast.subscribe("all")
        await slow.subscribe("all")
        seqs = await publish_noise(events)
        assert [message["seq"] for message in await fast.events(MANY)] == seqs
        assert await lagging(mesh) == 1
        found = await read_until(slow, "lagging")
        assert found[-1]["behind"] > 0
        async with asyncio.timeout(30):
            while not is_for_connection(found[-1]):
                found.append(await slow.next())
        assert found[-1]["cursor"].endswith(
            f":{max(seqs[-1], int(found[-1]['cursor'].split(':')[1]))}"
        )
        assert slow.seqs() == seqs
        assert await lagging(mesh) == 0
        seq = await events.publish()
        assert (await slow.expect("event"))["seq"] == seq


async def test_each_event_comes_once_though_several_subscriptions_want_it(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    async with slow_client(mesh) as slow:
        await slow.subscribe("event:agent:**", sub="a")
        await slow.subscribe("user:u", sub="b")
        seqs = []
        for _ in range(MANY // 3):
            seqs += await publish_noise(events, 2, user="u")
            await publish_noise(events, 1)
            seqs.append(await events.publish(user="v"))
        await until_lagging(mesh, 1)
        last = await events.publish()
        await read_until(slow, "event", seq=last)
        assert slow.seqs() == sorted(set(slow.seqs()))
        assert set(seqs) <= set(slow.seqs())


async def test_what_expires_under_a_slow_reader_is_said_to_each_live_subscription(
    nats_server: NatsServer, events: TestPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(Tail, max_events=8, page_events=4)
    monkeypatch.setattr("jarvis_mesh.gateway.live_feed.Tail", small)
    async with gateway(nats_server) as mesh, slow_client(mesh) as slow:
        await mesh.ready()
        await slow.subscribe("all", sub="a")
        await slow.subscribe("user:u", sub="b")
        seqs = await publish_noise(events, user="u")
        await until_lagging(mesh, 1)
        await events.jetstream.purge_stream("EVENTS", seq=seqs[-3])
        await read_until(slow, "event", seq=seqs[-1])
        gaps = [message for message in slow.received if message["op"] == "gap"]
        assert [gap["sub"] for gap in gaps] == ["a", "b"]
        had = [seq for seq in slow.seqs() if seq < seqs[-3]]
        for gap in gaps:
            assert (gap["from"], gap["to"]) == (had[-1] + 1, seqs[-3] - 1)
            assert gap["reason"] == "expired"
        assert slow.seqs() == [*had, *seqs[-3:]]


async def test_subscriptions_come_and_go_while_the_connection_is_behind(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    async with slow_client(mesh) as slow:
        await slow.subscribe("user:u", sub="a")
        await slow.subscribe("user:gone", sub="gone")
        seqs = await publish_noise(events, user="u")
        await until_lagging(mesh, 1)
        await slow.send("subscribe", sub="now", channels=["user:now"], id="now")
        await slow.send("subscribe", sub="old", channels=["user:u"], since="start", id="old")
        await slow.send("unsubscribe", sub="gone", id="gone")
        await read_until(slow, "unsubscribed")
        await read_until(slow, "live", sub="old")
        last = [await events.publish(user=user) for user in ("u", "gone", "now")]
        await read_until(slow, "event", seq=last[-1])
        assert [seq for seq in slow.seqs() if seq <= seqs[-1]] == seqs
        assert slow.seqs("old") == seqs
        assert [seq for seq in slow.seqs() if seq > seqs[-1]] == [last[0], last[2]]


async def test_a_conflated_subscription_of_a_slow_reader_gets_the_newest(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    async with slow_client(mesh) as slow:
        await slow.subscribe("all", sub="a")
        await slow.subscribe("entity:e", sub="c", conflate_ms=50)
        seqs = await publish_noise(events, entity="e")
        await until_lagging(mesh, 1)
        await read_until(slow, "event", sub="c", seq=seqs[-1])
        assert slow.seqs("c") == sorted(set(slow.seqs("c")))
        assert len(slow.seqs("c")) < MANY


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_slow_stream_is_caught_up_too(
    mesh: RunningGateway, events: TestPublisher, accept: str
) -> None:
    small = {"receive_buffer": 16 * 1024}
    async with ask(mesh.url, accept, channels=("all",), **small) as stream:  # type: ignore[arg-type]
        await (next_block if accept == SSE else next_line)(stream)
        seqs = await publish_noise(events)
        await until_lagging(mesh, 1)
        received = []
        while len(received) < MANY:
            if accept == SSE:
                received.append((await next_event(stream))["data"]["seq"])
            elif (line := await next_line(stream))["op"] == "event":
                received.append(line["seq"])
        assert received == seqs


async def test_a_reader_that_takes_nothing_at_all_is_closed_in_the_end(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    async with gateway(nats_server, stalled_after=1.0) as mesh:
        await mesh.ready()
        async with connect(mesh.url) as idle, slow_client(mesh) as slow:
            await idle.subscribe("user:nobody")
            await slow.subscribe("all")
            await publish_noise(events)
            await until_lagging(mesh, 1)
            await until_lagging(mesh, 0)
            assert await slow.close_code() == 1013
            assert slow.socket.close_reason == "stalled"
            _, text = await mesh.get("/metrics")
            assert 'mesh_drops_total{reason="stalled"} 1.0' in text
            await idle.still_lives()


async def test_a_reader_that_takes_little_is_never_closed(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    clock = SystemClock()
    async with gateway(nats_server, stalled_after=1.0) as mesh:
        await mesh.ready()
        async with slow_client(mesh) as slow:
            await slow.subscribe("all")
            seqs = await publish_noise(events)
            began = clock.monotonic()
            while clock.monotonic() - began < 2:
                await slow.events(2)
                await clock.sleep(0.2)
            rest = await slow.events(MANY - len(slow.seqs()))
            assert rest[-1]["seq"] == seqs[-1]
            assert slow.seqs() == seqs


async def test_of_a_client_that_takes_nothing_nothing_is_read_as_pings_would_be_answered(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    async with slow_client(mesh) as slow:
        await slow.subscribe("all")
        seqs = await publish_noise(events)
        await until_lagging(mesh, 1)
        (full,) = (
            each
            for each in gc.get_objects()
            if type(each) is WebSocketProtocol and each._outbox and each._outbox.is_full
        )
        assert not full._transport.is_reading()
        await slow.events(len(seqs))
        assert full._transport.is_reading()
