"""An HTTP client for streams: one request over one socket, read as it comes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import h11

JSON_TYPE = "application/json"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


class HttpAnswer:
    """Status and headers of an answer, and its body in pieces."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_ended = False
        self._reader = reader
        self._writer = writer
        self._protocol = h11.Connection(h11.CLIENT)
        self._text = ""

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """Send the request, and read the head of the answer."""
        all_headers = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
        request = h11.Request(method=method, target=target, headers=list(all_headers.items()))
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._protocol.send(event) or b"")
        head = await self._next()
        assert isinstance(head, h11.Response)
        self.status = head.status_code
        self.headers = {name.decode(): value.decode() for name, value in head.headers}

    async def text(self) -> str:
        """Return the body, whole."""
        while not self.is_ended:
            await self._read_on()
        return self._text

    async def until(self, separator: str, *, within: float = 10.0) -> str:
        """Return what comes before the next *separator*."""
        async with asyncio.timeout(within):
            while separator not in self._text:
                if self.is_ended:
                    raise EOFError
                await self._read_on()
        found, _, self._text = self._text.partition(separator)
        return found

    def cut(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()

    async def _read_on(self) -> None:
        match await self._next():
            case h11.Data(data=data):
                self._text += bytes(data).decode()
            case h11.EndOfMessage() | h11.ConnectionClosed():
                self.is_ended = True

    async def _next(self) -> Any:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._reader.read(65536))
        return event


@asynccontextmanager
async def ask(
    url: str,
    accept: str = JSON_TYPE,
    *,
    channels: tuple[str, ...] = (),
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
    **params: Any,
) -> AsyncIterator[HttpAnswer]:
    """Make one request of `/v1/events`; the answer can be read while this lasts."""
    address = urlsplit(url)
    sock = socket.create_connection((address.hostname, address.port))
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    name = None if tls is None else address.hostname
    reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name)
    query = urlencode([*(("channel", each) for each in channels), *params.items()])
    answer = HttpAnswer(reader, writer)
    try:
        target = f"/v1/events?{query}"
        await answer.send(method, target, {"Accept": accept, **(headers or {})}, body)
        yield answer
    finally:
        writer.transport.abort()


async def get_json(url: str, **options: Any) -> tuple[int, Any]:
    """Return status and content of a JSON answer."""
    async with ask(url, **options) as answer:
        return answer.status, json.loads(await answer.text())


async def next_block(answer: HttpAnswer, *, within: float = 10.0) -> dict[str, Any]:
    """Return the fields of the next server-sent event, its data parsed."""
    fields: dict[str, Any] = {}
    for line in (await answer.until("\n\n", within=within)).split("\n"):
        name, _, value = line.partition(":")
        fields[name or "comment"] = value.removeprefix(" ")
    if "data" in fields:
        fields["data"] = json.loads(fields["data"])
    return fields


async def next_event(answer: HttpAnswer) -> dict[str, Any]:
    """Return the next server-sent event that is an event of the log."""
    while True:
        block = await next_block(answer)
        if "data" in block and "event" not in block:
            return block


async def next_line(answer: HttpAnswer) -> dict[str, Any]:
    """Return the next JSON line."""
    message: dict[str, Any] = json.loads(await answer.until("\n"))
    return message
