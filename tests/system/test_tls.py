"""WebSockets and HTTP over TLS: as without it, however slow, rude or long-lived the client."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.gateway import certificate
from jarvis_mesh.gateway.tls_protocol import TlsProtocol
from jarvis_mesh.gateway.websocket_protocol import WebSocketProtocol
from tests.support.certificates import Certificates
from tests.support.gateway import RunningGateway, gateway
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import SSE, ask, get_json, next_block, next_event
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher
from tests.support.up import mesh_up, run_mesh
from tests.support.waiting import wait_until

NOISE = os.urandom(5_000).hex()
MANY = 150
"""Events with noise: 1.5 MB, more than the sockets between two programs take."""


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def tls_gateway(
    nats_server: NatsServer, files: Certificates, **settings: object
) -> AsyncIterator[RunningGateway]:
    async with gateway(nats_server, tls_cert=files.cert, tls_key=files.key, **settings) as running:
        await running.ready()
        yield running


@asynccontextmanager
async def slow_client(mesh: RunningGateway, files: Certificates) -> AsyncIterator[PlainClient]:
    """Connect a client that takes nothing from its small socket until it is asked to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.connect(("127.0.0.1", mesh.settings.port))
    async with connect(
        mesh.url,
        sock=sock,
        ssl=files.client(),
        server_hostname="localhost",
        max_queue=1,
        ping_interval=None,
    ) as client:
        # asyncio would take up to 256 KiB on the client's behalf.
        client.socket.transport._ssl_protocol._set_read_buffer_limits(high=16 * 1024)  # type: ignore[attr-defined]
        yield client


async def publish_noise(events: TestPublisher, count: int = MANY) -> list[int]:
    return [await events.publish(payload={"agentId": "a", "noise": NOISE}) for _ in range(count)]


async def metric(mesh: RunningGateway, name: str) -> float:
    _, text = await mesh.get("/metrics")
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


async def until_lagging(mesh: RunningGateway, count: int) -> None:
    async with asyncio.timeout(10):
        while await metric(mesh, "mesh_lagging ") != count:
            pass


def served() -> list[WebSocketProtocol]:
    """Return the gateway's side of every WebSocket that is open in this process."""
    found = [each for each in gc.get_objects() if type(each) is WebSocketProtocol]
    return [each for each in found if not each._transport.is_closing()]


async def test_a_websocket_a_stream_and_a_request_are_served_over_tls(
    nats_server: NatsServer, events: TestPublisher, files: Certificates
) -> None:
    trust = files.client()
    async with (
        tls_gateway(nats_server, files) as mesh,
        connect(mesh.url, ssl=trust) as client,
        ask(mesh.url, SSE, channels=("all",), tls=trust) as stream,
    ):
        await client.subscribe("all")
        await next_block(stream)
        seq = await events.publish()
        assert (await client.expect("event"))["seq"] == seq
        assert (await next_event(stream))["data"]["seq"] == seq
        status, page = await get_json(mesh.url, channels=("all",), since="start", tls=trust)
        assert (status, page["events"][0]["seq"]) == (200, seq)
        tls = client.socket.transport.get_extra_info("ssl_object")
        assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", None)


async def test_who_doesnt_know_the_authority_doesnt_connect(
    nats_server: NatsServer, files: Certificates
) -> None:
    async with tls_gateway(nats_server, files) as mesh:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect(mesh.url):
                pass


async def test_messages_larger_than_a_read_come_whole_and_in_order(
    nats_server: NatsServer, files: Certificates
) -> None:
    async with (
        tls_gateway(nats_server, files) as mesh,
        connect(mesh.url, ssl=files.client()) as client,
    ):
        for number in range(300):
            await client.send("ping", id=number)
        large = await client.ask("ping", padding="x" * 500_000, id="large")
        assert large["op"] == "pong"
        pongs = [message["id"] for message in client.received if message["op"] == "pong"]
        assert pongs == [*range(300), "large"]


async def test_a_slow_reader_is_caught_up_and_costs_as_little_as_without_tls(
    nats_server: NatsServer, events: TestPublisher, files: Certificates
) -> None:
    async with tls_gateway(nats_server, files) as mesh, slow_client(mesh, files) as slow:
        await slow.subscribe("all")
        seqs = await publish_noise(events)
        await until_lagging(mesh, 1)
        (full,) = served()
        assert full._outbox is not None
        assert full._outbox.is_full
        assert not full._transport.is_reading()
        # The mark, one event beyond it, and what TLS adds.
        limit = mesh.settings.high_water_bytes + len(NOISE) + 4096
        assert full._transport.get_write_buffer_size() < limit
        assert full._outbox.unacknowledged_bytes() > full._transport.get_write_buffer_size()
        received = [message["seq"] for message in await slow.events(MANY)]
        assert received == seqs
        await slow.expect("live")
        await until_lagging(mesh, 0)
        assert full._transport.is_reading()
        await slow.still_lives()


async def test_a_reader_that_takes_nothing_is_closed_in_the_end(
    nats_server: NatsServer, events: TestPublisher, files: Certificates
) -> None:
    async with (
        tls_gateway(nats_server, files, stalled_after=1.0) as mesh,
        connect(mesh.url, ssl=files.client()) as idle,
        slow_client(mesh, files) as slow,
    ):
        await idle.subscribe("user:nobody")
        await slow.subscribe("all")
        await publish_noise(events)
        await until_lagging(mesh, 1)
        await until_lagging(mesh, 0)
        assert await metric(mesh, 'mesh_drops_total{reason="stalled"}') == 1
        assert await slow.close_code() == 1013
        await idle.still_lives()


async def test_of_a_client_that_has_left_nothing_waits_for_the_garbage_collector(
    nats_server: NatsServer, files: Certificates
) -> None:
    def connections() -> int:
        return sum(type(each) is TlsProtocol for each in gc.get_objects())

    async with tls_gateway(nats_server, files) as mesh:
        gc.collect()
        gc.disable()
        try:
            async with connect(mesh.url, ssl=files.client()) as client:
                await client.subscribe("all")
                assert connections() == 1
            await wait_until(lambda: connections() == 0, "the last of what it had")
        finally:
            gc.enable()


async def test_who_doesnt_speak_tls_is_cut_without_a_word_in_the_log(
    nats_server: NatsServer, files: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async with tls_gateway(nats_server, files, header_timeout=0.3) as mesh:
        for words in (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            os.urandom(500),
            b"\x16\x03",
            b"",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", mesh.settings.port)
            writer.write(words)
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert b"HTTP" not in answer
            writer.close()
        assert (await mesh.get("/healthz"))[0] == 200
    assert [
        record for record in caplog.records if record.exc_info or record.levelname == "ERROR"
    ] == []


async def test_renewed_files_are_for_new_connections_and_old_ones_live_on(
    nats_server: NatsServer, files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "LOOK_EVERY", 0.05)
    trust = files.client()
    async with tls_gateway(nats_server, files) as mesh, connect(mesh.url, ssl=trust) as old:
        await old.expect("welcome")
        renewed = files.renew()

        def shown() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", mesh.settings.port)) as sock,
                trust.wrap_socket(sock, server_hostname="localhost") as tls,
            ):
                return tls.getpeercert(binary_form=True) or b""

        async with asyncio.timeout(10):
            while await asyncio.to_thread(shown) != renewed:
                pass
        await old.still_lives()


async def test_all_workers_serve_over_tls(
    nats_server: NatsServer, files: Certificates, tmp_path: Path
) -> None:
    process = GatewayProcess(
        {
            "NATS_URL": nats_server.url("gateway"),
            "TLS_CERT": str(files.cert),
            "TLS_KEY": str(files.key),
            "WORKERS": "2",
        },
        tmp_path / "gateway.log",
    )
    try:
        await process.start()
        for _ in range(8):
            async with connect(process.url, ssl=files.client()) as client:
                await client.expect("welcome")
        assert process.url in (tmp_path / "gateway.log").read_text()
        assert await process.terminate() == 0
    finally:
        await process.kill()


async def test_mesh_up_serves_over_tls_and_mesh_sub_trusts_by_ssl_cert_file(
    files: Certificates, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    async with mesh_up(data_dir, MESH_TLS_CERT=str(files.cert), MESH_TLS_KEY=str(files.key)) as up:
        assert up.says["gateway"].startswith("https://127.0.0.1:")
        here = {"MESH_DATA_DIR": str(data_dir)}
        assert (await run_mesh("pub", "agent:created", '{"agentId":"a"}', **here))[0] == 0
        ask_for_it = ("sub", "all", "--json", "--count", "1", "--since", "start")
        code, shown, said = await run_mesh(*ask_for_it, **here, SSL_CERT_FILE=str(files.ca))
        assert (code, json.loads(shown)["event"]["type"]) == (0, "agent:created"), said
        code, _, said = await run_mesh(*ask_for_it, **here)
        assert code == 1
        assert "certificate" in said.lower()
        code, stderr = await up.end(2)
        assert (code, "Traceback" in stderr) == (0, False)


async def test_half_a_pair_is_refused_before_anything_starts(files: Certificates) -> None:
    code, _, said = await run_mesh("gateway", "--port", "0", "--tls-cert", str(files.cert))
    assert code == 1
    assert (
        said
        == "mesh: MESH_TLS_CERT needs MESH_TLS_KEY beside it: TLS takes a certificate and its key\n"
    )
