"""Limits from outside: the answer names the limit, it is counted, and others notice nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import websockets

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.gateway import RunningGateway, gateway
from tests.support.http_client import NDJSON, SSE, ask, get_json
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher
from tests.support.tokens import SECRET, bearer, token_for
from tests.support.waiting import wait_until

OTHER = "127.0.0.2"


@asynccontextmanager
async def limited(nats_server: NatsServer, **settings: Any) -> AsyncIterator[RunningGateway]:
    async with gateway(nats_server, limit_loopback=True, **settings) as running:
        await running.ready()
        yield running


@asynccontextmanager
async def connect_from(
    address: str, mesh: RunningGateway, **options: Any
) -> AsyncIterator[PlainClient]:
    sock = socket.create_connection(("127.0.0.1", mesh.settings.port), source_address=(address, 0))
    async with connect(mesh.url, sock=sock, **options) as client:
        yield client


async def refused_from(address: str, mesh: RunningGateway, **options: Any) -> str:
    """Return what a handshake from there is refused with, which is 429."""
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect_from(address, mesh, **options):
            pass
    assert refusal.value.response.status_code == 429
    return refusal.value.response.body.decode()


async def counted(mesh: RunningGateway, reason: str, **headers: str) -> float:
    _, text = await mesh.get("/metrics", **headers)
    name = f'mesh_refusals_total{{reason="{reason}"}} '
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


async def test_connections_of_an_address(nats_server: NatsServer) -> None:
    async with (
        limited(nats_server, max_connections_per_address=2) as mesh,
        connect_from(OTHER, mesh) as first,
        connect_from(OTHER, mesh),
        connect(mesh.url) as neighbour,
    ):
        assert "2 connections from one address" in await refused_from(OTHER, mesh)
        await neighbour.next()
        await neighbour.still_lives()
        await first.next()
        await first.still_lives()
        assert await counted(mesh, "connections_address") == 1
        first.socket.transport.abort()

        async def is_let_in() -> bool:
            try:
                async with connect_from(OTHER, mesh):
                    return True
            except websockets.InvalidStatus:
                return False

        async with asyncio.timeout(10):
            while not await is_let_in():
                await wait_until(lambda: True)


async def test_streams_and_long_polls_count_as_connections(nats_server: NatsServer) -> None:
    async with limited(nats_server, max_connections_per_address=2) as mesh:
        async with (
            ask(mesh.url, SSE, channels=("all",)) as stream,
            ask(mesh.url, NDJSON, channels=("all",)) as lines,
        ):
            assert (stream.status, lines.status) == (200, 200)
            status, refusal = await get_json(mesh.url, channels=("all",), wait=30)
            assert (status, refusal["code"], refusal["retryable"]) == (429, "rate_limited", True)
        async with asyncio.timeout(10):
            while (await get_json(mesh.url, channels=("all",)))[0] != 200:
                await wait_until(lambda: True)


async def test_connections_of_a_user(nats_server: NatsServer) -> None:
    async with (
        limited(nats_server, max_connections_per_user=2, jwt_secret=SECRET) as mesh,
        AsyncExitStack() as stack,
    ):
        alice = bearer(token_for("alice"))
        for address in ("127.0.0.3", "127.0.0.4"):
            client = connect_from(address, mesh, additional_headers=alice)
            await stack.enter_async_context(client)
        refusal = await refused_from(OTHER, mesh, additional_headers=alice)
        assert "2 connections of one user" in refusal
        async with connect(mesh.url) as late:
            assert await late.refusal("auth", token=token_for("alice")) == "rate_limited"
            assert await late.refusal("subscribe", sub="a", channels=["all"]) == "unauthorized"
            assert (await late.ask("auth", token=token_for("bob")))["op"] == "authenticated"
        operator = bearer(token_for("ops", subscribe=["all"]))
        assert await counted(mesh, "connections_user", **operator) == 2


async def test_handshakes_and_requests_of_an_address(nats_server: NatsServer) -> None:
    async with limited(nats_server, requests_per_second=0.5) as mesh:
        statuses = [(await get_json(mesh.url, channels=("all",)))[0] for _ in range(8)]
        assert statuses[-1] == 429
        assert "requests a second" in await refused_from("127.0.0.1", mesh)
        async with connect_from(OTHER, mesh) as neighbour:
            await neighbour.next()
            await neighbour.still_lives()


async def test_the_size_of_messages(nats_server: NatsServer) -> None:
    async with limited(nats_server, message_bytes=2048) as mesh:
        async with connect(mesh.url) as client:
            assert (await client.next())["limits"]["message_bytes"] == 2048
            await client.send("ping", pad="x" * 1900)
            await client.expect("pong")
            await client.send("ping", pad="x" * 2100)
            assert await client.close_code() == 1009
        status, refusal = await get_json(mesh.url, method="POST", body=b'"' + b"x" * 2100 + b'"')
        assert (status, refusal["code"]) == (413, "too_large")
        assert "2,048 bytes" in refusal["message"]
        assert await counted(mesh, "message_bytes") == 2


async def test_messages_of_a_connection(nats_server: NatsServer, events: TestPublisher) -> None:
    async with (
        limited(nats_server, messages_per_second=1) as mesh,
        connect(mesh.url) as client,
        connect_from(OTHER, mesh) as neighbour,
    ):
        await client.subscribe("all", sub="a")
        await client.subscribe("all", sub="b")
        answer = await client.ask("subscribe", sub="c", channels=["all"])
        assert (answer["code"], answer["sub"], answer["retryable"]) == (
            *("rate_limited", "c"),
            True,
        )
        assert "MESH_MESSAGES_PER_SECOND" in answer["message"]
        await client.still_lives()
        seq = await events.publish()
        assert (await client.expect("event"))["seq"] == seq
        await neighbour.subscribe("all")
        assert await counted(mesh, "messages") == 1


async def test_subscriptions_and_channels(nats_server: NatsServer) -> None:
    async with (
        limited(nats_server, max_subscriptions=2, max_channels=3) as mesh,
        connect(mesh.url) as client,
    ):
        limits = (await client.next())["limits"]
        assert (limits["subscriptions"], limits["channels"]) == (2, 3)
        many = ["user:a", "user:b", "user:c", "user:d"]
        assert await client.refusal("subscribe", sub="x", channels=many) == "limit_exceeded"
        await client.subscribe(*many[:3], sub="a")
        await client.subscribe("all", sub="b")
        assert await client.refusal("subscribe", sub="c", channels=["all"]) == "limit_exceeded"
        await client.ask("unsubscribe", sub="a")
        await client.subscribe("all", sub="c")
        assert await counted(mesh, "subscriptions") == 1
        assert await counted(mesh, "channels") == 1


async def test_replays_at_once(nats_server: NatsServer, events: TestPublisher) -> None:
    await events.publish_many(300, session="x" * 100)
    async with limited(nats_server, max_replays=1, jwt_secret=SECRET) as mesh:
        headers = bearer(token_for("alice", subscribe=["all"]))
        other = bearer(token_for("bob", subscribe=["all"]))
        options: dict[str, Any] = {"receive_buffer": 4096, "channels": ("all",), "since": "start"}
        async with ask(mesh.url, NDJSON, headers=headers, **options) as stalled:
            assert stalled.status == 200
            async with connect(mesh.url, additional_headers=headers) as client:
                code = await client.refusal("subscribe", sub="a", channels=["all"], since="start")
                assert code == "rate_limited"
                await client.subscribe("all", sub="live")
            async with connect(mesh.url, additional_headers=other) as neighbour:
                await neighbour.subscribe("all", since="start")
                await neighbour.expect("live")
        async with connect(mesh.url, additional_headers=headers) as client:
            async with asyncio.timeout(10):
                while True:
                    answer = await client.ask("subscribe", sub="a", channels=["all"], since="start")
                    if answer["op"] == "subscribed":
                        break
            await client.expect("live")
            await client.subscribe("all", sub="b", since="start")


async def test_how_far_back_a_replay_goes(nats_server: NatsServer, events: TestPublisher) -> None:
    (old,) = await events.publish_many(1)
    async with (
        limited(nats_server, max_replay_age=1, messages_per_second=1e6) as mesh,
        connect(mesh.url) as client,
    ):
        cursor = (await client.next())["cursor"]
        epoch = cursor.split(":")[0]
        recent = old

        async def refusal(since: object) -> str:
            answer = await client.ask("subscribe", sub="x", channels=["all"], since=since)
            if answer["op"] == "subscribed":
                await client.ask("unsubscribe", sub="x")
            return str(answer.get("code"))

        async with asyncio.timeout(20):
            while await refusal("start") != "limit_exceeded":
                (recent,) = await events.publish_many(1)
        for since in ({"seconds": 3600}, "2020-01-01T00:00:00Z", f"{epoch}:0"):
            assert await refusal(since) == "limit_exceeded", since
        (recent,) = await events.publish_many(1)
        for since in (None, {"seconds": 0.5}, f"{epoch}:{recent - 1}", "last"):
            assert await refusal(since) == "None", since
        status, refused = await get_json(mesh.url, channels=("all",), since="start")
        assert (status, refused["code"]) == (400, "limit_exceeded")
        assert "1 seconds" in refused["message"]


async def test_a_stream_that_is_live_replays_no_more(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    await events.publish_many(3)
    options: dict[str, Any] = {"channels": ("all",), "since": "start"}
    async with (
        limited(nats_server, max_replays=1) as mesh,
        ask(mesh.url, NDJSON, **options) as first,
    ):
        await first.until('"op":"live"')
        async with ask(mesh.url, NDJSON, **options) as second:
            assert second.status == 200


async def test_a_cursor_ahead_of_the_log_goes_back_no_further(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    (old,) = await events.publish_many(1)
    async with (
        limited(nats_server, max_replay_age=1, messages_per_second=1e6) as mesh,
        connect(mesh.url) as client,
    ):
        epoch = (await client.next())["cursor"].partition(":")[0]
        async with asyncio.timeout(20):
            while True:
                await events.publish_many(1)
                answer = await client.ask("subscribe", sub="x", channels=["all"], since="start")
                if answer["op"] == "error":
                    break
                await client.ask("unsubscribe", sub="x")
        await client.subscribe("all", sub="a", since=f"{epoch}:1000000")
        await client.expect("live", sub="a")
        assert old not in client.seqs("a")
