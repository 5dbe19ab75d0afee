"""No client is waited for without end, and none makes the gateway keep much of what it sends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from jarvis_mesh.gateway.http_protocol import MAX_FIELDS, HttpProtocol, Limits, _Awaited
from tests.support.waiting import wait_until

HASTY = Limits(header_timeout=0.2, max_header_bytes=4096, stalled_after=0.3, body_timeout=0.2)
PATIENT = Limits(60, 4096, 60, 60)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Served:
    """A server with one app, and what it knows of its connections."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.port = port
        self._server = server

    @property
    def connections(self) -> list[HttpProtocol]:
        return cast(list[HttpProtocol], list(self._server.server_state.connections))

    async def say(self, *parts: bytes) -> bytes:
        """Send *parts* one after the other; return all that comes until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(10):
            answer = await _read_all(reader)
        writer.transport.abort()
        return answer


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    try:
        while part := await reader.read(65536):
            answer += part
    except ConnectionError:
        pass  # cut, and what came before counts
    return answer


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, once it is whole; `/endless` with a stream; `/large` at length."""
    headers: list[tuple[bytes, bytes]] = []
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    if scope["path"] == "/large":
        body = bytes(20_000_000)
    names = b",".join(name for name, _ in scope["headers"])
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-had", names)]},
    )
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Served]:
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=cast(Any, partial(HttpProtocol, limits)),
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve([sock]))
        await wait_until(lambda: server.started, "the server")
        try:
            yield Served(server, sock.getsockname()[1])
        finally:
            server.should_exit = True


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((), b""),  # nothing at all: no answer to nothing
        ((b"G",), b"408"),
        ((b"\r\n",), b"408"),
        ((GET,), b"408"),
        ((GET + b"X: a", b"b"), b"408"),
        ((POST,), b"408"),
        ((POST, b"12345"), b"408"),
        ((CHUNKED + b"5\r\n12345\r\n",), b"408"),
        ((CHUNKED + b"5\r\n12345\r\n0\r\nX: ",), b"408"),
    ],
)
async def test_who_doesnt_finish_a_request_is_told_and_closed(
    parts: tuple[bytes, ...], status: bytes
) -> None:
    async with serving(HASTY) as served:
        answer = await served.say(*parts)
        assert answer.split(b" ")[1:2] == ([status] if status else [])
        await wait_until(lambda: not served.connections, "the end")


@pytest.mark.parametrize("rest", [b"GET / HT", b"\r\n"])
async def test_the_next_request_of_a_connection_is_awaited_no_longer(rest: bytes) -> None:
    async with serving(HASTY) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(GET + b"\r\n")
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.write(rest)
        async with asyncio.timeout(10):
            assert (await _read_all(reader)).startswith(b"HTTP/1.1 408 ")
        writer.transport.abort()


async def test_half_a_request_behind_an_answer_that_is_underway_cuts_it() -> None:
    async with serving(HASTY) as served:
        answer = await served.say(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"408" not in answer


@pytest.mark.parametrize(
    "parts",
    [
        (GET, b"X: " + b"a" * 5000),
        (GET + b"X: " + b"a" * 5000 + b"\r\n\r\n",),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",),
        (b"GET /" + b"a" * 2500, b"a" * 2500),
        (GET + b"a" * 5000,),
        (GET + b"X: a\r\n" * MAX_FIELDS + b"\r\n",),
        (b"\r\n" * 2500,),
    ],
)
async def test_too_large_a_head_is_refused_before_it_is_whole(parts: tuple[bytes, ...]) -> None:
    async with serving(PATIENT) as served:
        assert (await served.say(*parts)).startswith(
            b"HTTP/1.1 431 Request Header Fields Too Large"
        )


async def test_too_large_a_trailer_is_refused_before_it_is_whole() -> None:
    async with serving(PATIENT) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(CHUNKED)
        await wait_until(
            lambda: [each._awaited for each in served.connections] == [_Awaited.BODY], "a head"
        )
        writer.write(b"0\r\nX: " + b"a" * 5000)
        async with asyncio.timeout(10):
            assert (await _read_all(reader)).startswith(b"HTTP/1.1 431 ")
        writer.transport.abort()


async def test_a_large_body_beside_a_small_head_is_none() -> None:
    head = POST.replace(b"10", b"500000").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(PATIENT) as served:
        answer = await served.say(head + bytes(250_000), bytes(250_000))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert bytes(500_000) in answer


async def test_as_many_fields_as_are_allowed_pass() -> None:
    async with serving(PATIENT) as served:
        fields = b"Connection: close\r\n" + b"X: a\r\n" * (MAX_FIELDS - 2)
        assert (await served.say(GET + fields + b"\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_what_is_no_http_is_refused() -> None:
    async with serving(PATIENT) as served:
        assert (await served.say(b"\x16\x03\x01hello\r\n")).startswith(b"HTTP/1.1 400 Bad Request")


async def test_trailers_are_not_taken_for_headers() -> None:
    async with serving(PATIENT) as served:
        head = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answer = await served.say(head, b"1\r\na\r\n0\r\nX-Late: 1\r\n\r\n")
        assert b"x-had: host,transfer-encoding,connection\r\n" in answer


async def test_who_takes_nothing_of_an_answer_is_cut() -> None:
    async with serving(HASTY) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_until(lambda: served.connections, "a connection")
        await wait_until(lambda: not served.connections, "the end")
        writer.transport.abort()


async def test_a_request_that_is_whole_leaves_no_timer() -> None:
    async with serving(PATIENT) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_until(
            lambda: [each._awaited for each in served.connections] == [_Awaited.NOTHING],
            "a request",
        )
        assert [each._timer for each in served.connections] == [None]
        writer.transport.abort()
