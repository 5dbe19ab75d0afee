"""Many WebSocket clients in one process that cost next to nothing: they count, they don't parse.

That events come once and in order is what the tests check; here only their number counts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.stage import CLOCK

EVENT = b'"op":"event"'
_SUBSCRIBED = re.compile(rb'"op":"subscribed".*?"cursor":"(\d+:\d+)"')
_MASK = bytes(4)


class CountingClient(asyncio.Protocol):
    """One connection in the JSON form."""

    def __init__(self, *requests: dict[str, Any], token: str | None = None) -> None:
        self.events = 0
        self.received_bytes = 0
        self.is_open = asyncio.get_running_loop().create_future()
        self.is_live = asyncio.get_running_loop().create_future()
        """Done when a replay has ended."""
        self.subscribed = 0
        self.cursor = ""
        """That of `subscribed`."""
        self.is_lost = False
        self._requests = requests
        self._bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
        self._end = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\n{self._bearer}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.received_bytes:
            for request in self._requests:
                self.send(request)
        self.received_bytes += len(data)
        joined = self._end + data
        self.events += joined.count(EVENT)
        self._end = joined[-len(EVENT) + 1 :]
        self.subscribed += joined.count(b'"op":"subscribed"')
        if not self.is_open.done() and (found := _SUBSCRIBED.search(joined)):
            self.cursor = found[1].decode()
            self.is_open.set_result(None)
        if not self.is_live.done() and b'"op":"live"' in joined:
            self.is_live.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if not self.is_open.done():
            self.is_open.set_exception(ConnectionError("closed before it was subscribed"))
        if not self.is_live.done():
            self.is_live.cancel()

    async def has_subscribed(self, count: int) -> None:
        """Return once *count* subscriptions are accepted."""
        async with asyncio.timeout(60):
            while self.subscribed < count:
                await CLOCK.sleep(0.01)

    def send(self, request: dict[str, Any]) -> None:
        """Send one request in a masked text frame."""
        assert self._transport is not None
        self._transport.write(frame(json.dumps(request).encode()))

    def stall(self) -> None:
        """Take nothing any more."""
        assert self._transport is not None
        self._transport.pause_reading()

    def read_on(self) -> None:
        """Take what comes again."""
        assert self._transport is not None
        self._transport.resume_reading()

    def cut(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()


def frame(text: bytes) -> bytes:
    """Return a masked text frame."""
    length = len(text)
    head = (
        bytes([0x81, 0x80 | length])
        if length < 126
        else bytes([0x81, 0xFE]) + length.to_bytes(2, "big")
    )
    return head + _MASK + text


def subscribe(*channels: str, since: Any = None) -> dict[str, Any]:
    """Return the request for a subscription."""
    request = {"op": "subscribe", "id": 1, "sub": "a", "channels": list(channels)}
    return request if since is None else {**request, "since": since}


async def until_all_have(
    readers: Sequence[CountingClient],
    count: int,
    *,
    within: float,
    watch: Callable[[], float] = lambda: 0.0,
) -> float:
    """Return when each reader has *count* events, with the highest figure that *watch* gave.

    Raises:
        TimeoutError: not *within* seconds.
    """
    highest = watch()
    async with asyncio.timeout(within):
        while any(reader.events < count for reader in readers):
            await CLOCK.sleep(0.05)
            highest = max(highest, watch())
    return highest


async def connect(
    url: str,
    *requests: dict[str, Any],
    make: Callable[..., CountingClient] = CountingClient,
) -> CountingClient:
    """Return a client that has said *requests*, once the first subscription is accepted."""
    address = urlsplit(url)
    sock = socket.create_connection((address.hostname, address.port))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: make(*requests), sock=sock)
    await client.is_open
    return client
