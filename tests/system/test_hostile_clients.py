"""Whatever a client's socket sends, it is answered, and nobody else is worse off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fuzz.frames import PING, frame
from tests.support.gateway import RunningGateway
from tests.support.plain_client import connect

HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def raw(
    mesh: RunningGateway, data: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect and send *data* in one write."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.settings.port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("target", [b"http://127.0.0.1", b"*", b"127.0.0.1:80", b"//x:99999/v1/ws"])
async def test_a_handshake_for_no_path_of_ours_is_refused(
    mesh: RunningGateway, target: bytes
) -> None:
    async with raw(mesh, HANDSHAKE.replace(b"/v1/ws", target)) as (reader, _):
        answer = await reader.read()
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))


async def test_what_comes_right_behind_the_handshake_is_heard(mesh: RunningGateway) -> None:
    early = frame(b'{"op":"ping","id":"early"}') + frame(b"x", PING)
    async with raw(mesh, HANDSHAKE + early) as (reader, writer):
        assert b"101 Switching" in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b'{"op":"pong","id":"early"}')
        writer.write(frame(b'{"op":"ping","id":"later"}'))
        await reader.readuntil(b'{"op":"pong","id":"later"}')


async def test_of_requests_that_come_all_at_once_little_is_taken_at_a_time(
    mesh: RunningGateway,
) -> None:
    """Others are answered in between, and so is each of them."""
    count = 2_000
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with raw(mesh, request * count) as (reader, _), connect(mesh.url) as client:
        await reader.readuntil(b"HTTP/1.1 200")
        answered, found = 1, b""
        await client.still_lives()
        while answered < count:
            found = found[-11:] + await reader.read(1 << 20)
            answered += found.count(b"HTTP/1.1 200")


async def test_a_flood_of_pings_is_answered_whole(mesh: RunningGateway) -> None:
    count = 20_000
    async with raw(mesh, HANDSHAKE) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(b"x", PING) * count + frame(b'{"op":"ping","id":"last"}'))
        found = b""
        while b'"last"' not in found[-100:]:
            found += await reader.read(1 << 20)
    assert found.count(b"\x8a\x01x") == count


async def test_large_messages_come_whole(mesh: RunningGateway) -> None:
    async with connect(mesh.url) as client:
        for size in (1, 500, 512, 4_096, 70_000, 1_000_000):
            await client.socket.send('{"op":"ping","id":1}' + " " * size)
            await client.expect("pong")
