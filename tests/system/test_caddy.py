"""Behind config/Caddyfile clients are served as without it, and can't say they are others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import websockets

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.gateway.addresses import Proxies
from tests.support.caddy import caddy
from tests.support.certificates import Certificates
from tests.support.gateway import gateway
from tests.support.http_client import SSE, ask, get_json, next_block, next_event
from tests.support.plain_client import connect
from tests.support.publishing import TestPublisher
from tests.support.waiting import wait_until


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_a_websocket_and_a_stream_see_an_event_over_its_tls(
    nats_server: NatsServer, events: TestPublisher, files: Certificates, tmp_path: Path
) -> None:
    trust = files.client()
    async with gateway(nats_server) as mesh:
        await mesh.ready()
        async with (
            caddy(files, tmp_path, f"127.0.0.1:{mesh.settings.port}") as url,
            connect(url, ssl=trust, origin=url) as client,  # which is its own
            ask(url, SSE, channels=("all",), tls=trust, headers={"Host": "localhost"}) as stream,
        ):
            await client.subscribe("all")
            await next_block(stream)
            seq = await events.publish()
            assert (await client.expect("event"))["seq"] == seq
            assert (await next_event(stream))["data"]["seq"] == seq
            with pytest.raises(websockets.InvalidStatus, match="403"):
                async with connect(url, ssl=trust, origin="https://evil.example"):
                    pass


async def test_when_one_gateway_stops_new_clients_get_another(
    nats_server: NatsServer, files: Certificates, tmp_path: Path
) -> None:
    trust = files.client()
    async with gateway(nats_server) as one, gateway(nats_server) as other:
        await one.ready()
        await other.ready()
        ports = [each.settings.port for each in (one, other)]
        async with caddy(files, tmp_path, *(f"127.0.0.1:{port}" for port in ports)) as url:
            one.drain()
            await wait_until(lambda: not one.is_listening(), "its end")
            for _ in range(10):
                async with connect(url, ssl=trust) as client:
                    await client.expect("welcome")
                status, _ = await get_json(
                    url, channels=("all",), since="start", tls=trust, headers={"Host": "localhost"}
                )
                assert status == 200


async def test_the_gateway_is_told_who_the_client_is_and_not_who_it_says_it_is(
    files: Certificates, tmp_path: Path
) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, caddy(files, tmp_path, f"127.0.0.1:{port}") as url:
        lie = {"Host": "localhost", "X-Forwarded-For": "203.0.113.9"}
        async with ask(url, tls=files.client(), headers=lie) as answered:
            assert answered.status == 200
    (asked,) = [head for head in heads if head.startswith(b"GET /v1/events")]
    fields = [line.split(b": ", 1) for line in asked.split(b"\r\n")[1:] if line]
    said = [value.decode() for name, value in fields if name.lower() == b"x-forwarded-for"]
    assert Proxies(["127.0.0.1"]).client_address("127.0.0.1", said) in ("127.0.0.1", "::1")
    assert "203.0.113.9" not in ", ".join(said)
    assert [value for name, value in fields if name.lower() == b"host"] == [b"localhost"]
