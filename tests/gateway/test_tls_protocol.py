"""What our TLS takes from asyncio's inner parts has to be there, in every version of Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jarvis_mesh.gateway.certificate import Certificate
from jarvis_mesh.gateway.tls_protocol import READ_BYTES, TlsProtocol
from tests.support.certificates import Certificates
from tests.support.waiting import wait_until

HIGH_WATER = 32 * 1024


class App(asyncio.Protocol):
    """Notes what the transport says."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.received = b""
        self.is_paused = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


@asynccontextmanager
async def connected(
    folder: Path,
) -> AsyncIterator[tuple[App, TlsProtocol, asyncio.StreamReader, asyncio.StreamWriter]]:
    files, app = Certificates(folder), App()
    context = Certificate(files.cert, files.key).context
    made: list[TlsProtocol] = []

    def accept() -> TlsProtocol:
        made.append(TlsProtocol(app, context, 5.0))
        return made[-1]

    async with await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=files.client())
        await wait_until(lambda: hasattr(app, "transport"), "the handshake")
        yield app, made[0], reader, writer
        writer.transport.abort()
        await wait_until(lambda: app.is_lost, "the end")


def beneath(tls: TlsProtocol) -> asyncio.Transport:
    assert isinstance(tls._transport, asyncio.Transport)
    return tls._transport


async def test_a_client_that_takes_nothing_pauses_us_and_nothing_is_hidden_beneath(
    tmp_path: Path,
) -> None:
    async with connected(tmp_path) as (app, tls, reader, writer):
        writer.transport.pause_reading()
        written = 0
        while not app.is_paused:
            app.transport.write(bytes(1000))
            written += 1000
        assert beneath(tls).get_write_buffer_size() > 0
        assert HIGH_WATER <= app.transport.get_write_buffer_size() < HIGH_WATER + 2000
        writer.transport.resume_reading()
        await reader.readexactly(written)
        await wait_until(lambda: not app.is_paused, "resume_writing")
        assert app.transport.get_write_buffer_size() == 0
        writer.write(bytes(1_000_000))  # many times what is read at once
        await wait_until(lambda: len(app.received) == 1_000_000, "all of it")


async def test_of_what_the_app_doesnt_take_little_is_kept(tmp_path: Path) -> None:
    async with connected(tmp_path) as (app, tls, _, writer):
        app.transport.pause_reading()
        writer.write(bytes(1_000_000))
        await wait_until(lambda: not beneath(tls).is_reading(), "a pause")
        assert tls._incoming.pending <= 2 * READ_BYTES
        app.transport.resume_reading()
        await wait_until(lambda: len(app.received) == 1_000_000, "all of it")


async def test_all_connections_read_into_one_buffer(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, one, *_), connected(tmp_path) as (_, other, *_):
        assert one.get_buffer(-1).obj is other.get_buffer(-1).obj
