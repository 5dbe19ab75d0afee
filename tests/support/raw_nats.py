"""A NATS connection that sends what a client library wouldn't."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from jarvis_mesh.cli.embedded import NatsServer

HEADERS: Final = (
    b"NATS/1.0\r\nNats-Stream: EVENTS\r\nNats-Subject: x\r\nNats-Sequence: 5\r\n\r\n",
    b"NATS/1.0\r\nNats-Num-Pending: 0\r\n\r\n",
    b"NATS/1.0 204 EOB\r\n\r\n",
    b"NATS/1.0 404 Not Found\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\nX: y",
    b"NATS/1.0\r\nX: yy\r\n",
    b"XXXXXX",
    b"\r\n",
)
"""Headers with which a publisher can try to pass for the server, or that aren't any."""


class RawNats:
    """A NATS connection that sends what a client library wouldn't."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, data: bytes) -> None:
        """Send *data* and return once the server has taken it."""
        self._writer.write(data + b"PING\r\n")
        async with asyncio.timeout(5):
            while (line := await self._reader.readline()) != b"PONG\r\n":
                assert line, "the server closed the connection"

    async def hpub(self, subject: str, header: bytes, body: bytes, reply: str = "") -> None:
        """Publish with raw headers."""
        sizes = f"{len(header)} {len(header) + len(body)}"
        control = " ".join(part for part in ("HPUB", subject, reply, sizes) if part)
        await self.say(control.encode() + b"\r\n" + header + body + b"\r\n")


@asynccontextmanager
async def raw_nats(server: NatsServer, user: str) -> AsyncIterator[RawNats]:
    """Connect as *user*."""
    url = urlsplit(server.url(user))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        await reader.readline()
        connection = RawNats(reader, writer)
        options = {
            "user": url.username,
            "pass": url.password,
            "verbose": False,
            "pedantic": False,
            "headers": True,
        }
        await connection.say(f"CONNECT {json.dumps(options)}\r\n".encode())
        yield connection
    finally:
        writer.close()
