"""The application under a stock ASGI server, which shows it no transport."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.app import create_app
from jarvis_mesh.gateway.gateway import Gateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import SSE, ask
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.tokens import SECRET, bearer, token_for
from tests.support.waiting import wait_until

FORMS = ("mesh.v1.json", "mesh.v1.cbor")


class StockServer(RunningGateway):
    """A gateway that this test drains."""

    gateway: Gateway


@asynccontextmanager
async def served(nats_server: NatsServer, **more: Any) -> AsyncIterator[StockServer]:
    sock = socket.create_server(("127.0.0.1", 0))
    settings = Settings(
        nats_url=nats_server.url("gateway"),  # type: ignore[arg-type]
        port=sock.getsockname()[1],
        **more,
    )
    running = StockServer(settings, asyncio.Event())
    running.gateway = Gateway(settings)
    app = create_app(gateway=running.gateway)
    server = uvicorn.Server(
        uvicorn.Config(app, http="h11", ws="websockets-sansio", lifespan="on", log_config=None)
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server._serve(sockets=[sock]))  # without its signal handlers
        await wait_until(lambda: server.started, "the server")
        await running.ready()
        yield running
        server.should_exit = True


@pytest.fixture
async def stock(nats_server: NatsServer) -> AsyncIterator[StockServer]:
    async with served(nats_server) as running:
        yield running


@pytest.mark.parametrize("form", FORMS)
async def test_events_come_replayed_and_live(
    stock: StockServer, events: TestPublisher, form: str
) -> None:
    before = await events.publish_many(20)
    async with connect(stock.url, form) as client:
        await client.subscribe("all", since="start")
        await client.events(20)
        await client.expect("live")
        after = await events.publish_many(20)
        await client.events(20)
        assert (client.seqs("a"), client.seqs()) == (before, after)
        await client.still_lives()


async def test_a_slow_reader_is_caught_up(stock: StockServer, events: TestPublisher) -> None:
    noise = os.urandom(5_000).hex()
    async with connect(stock.url, max_queue=1) as client:
        await client.subscribe("all")
        payload = {"agentId": "a", "noise": noise}
        seqs = [await events.publish(payload=payload) for _ in range(400)]
        await client.events(400)
        assert client.seqs() == seqs


@pytest.mark.parametrize("form", FORMS)
async def test_draining_tells_everybody(stock: StockServer, form: str) -> None:
    async with connect(stock.url, form) as client, ask(stock.url, SSE, channels=["all"]) as stream:
        await client.subscribe("all")
        await stream.until("live")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stock.gateway.drain())
            await client.expect("closing", reason="draining")
            assert await client.close_code() == 1012
        assert (await stock.get("/readyz"))[0] == 503


async def test_tokens_count_here_too(nats_server: NatsServer, events: TestPublisher) -> None:
    async with served(nats_server, jwt_secret=SECRET) as stock:
        with pytest.raises(Exception, match="401"):
            async with connect(stock.url, additional_headers=bearer("nonsense")):
                pass
        headers = bearer(token_for("alice", expires_in=2))
        async with connect(stock.url, additional_headers=headers) as client:
            assert (await client.subscribe("all"))["filters"] == ["*.*.*.*.*.alice.*"]
            await events.publish(make_event(user="bob"))
            seq = await events.publish(make_event(user="alice"))
            assert (await client.expect("event"))["seq"] == seq
            assert await client.close_code() == 1008
        async with connect(stock.url) as client:
            assert (await client.next())["auth"] == "required"
            token = token_for("alice")
            assert (await client.ask("auth", token=token))["op"] == "authenticated"


async def test_a_request_from_elsewhere_is_refused(stock: StockServer) -> None:
    with pytest.raises(Exception, match="403"):
        async with connect(stock.url, origin="https://evil.example"):
            pass


async def test_what_was_left_is_in_no_group(stock: StockServer, events: TestPublisher) -> None:
    fanout = stock.gateway.services.fanout
    async with connect(stock.url) as client:
        assert isinstance(client, PlainClient)
        await client.subscribe("all")
        assert fanout.members == 1
    await wait_until(lambda: fanout.members == 0, "its leave")
