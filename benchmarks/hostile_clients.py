"""Hostile connections in a process of their own, so that honest ones don't wait for them here.

    python -m benchmarks.hostile_clients PORT

Their tokens, a JSON list, and "stop" in the end come by stdin; what they did is printed as JSON.
Each does what it does as fast as the gateway lets it, and comes back a second after a refusal.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
from collections import Counter
from typing import ClassVar

from benchmarks.clients import frame
from benchmarks.stage import CLOCK, cpu_seconds

ADDRESSES = 50
"""127.0.1.1 and those after it; as many connections come from each."""
COMES_BACK = 1.0
"""Seconds after the end of a connection."""
DRIPS = 0.5
"""Seconds between two bytes of a slow handshake."""
CHURNS = 8
"""Pairs of subscribe and unsubscribe under way on a connection."""
_DONE = Counter[str]()


class Hostile(asyncio.Protocol):
    """One connection, and what it does."""

    kind: ClassVar[str]

    def __init__(self, token: str) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.token = token
        self.transport: asyncio.Transport
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.begin()

    def data_received(self, data: bytes) -> None:
        if b'"code":"rate_limited"' in data or b'"code":"limit_exceeded"' in data:
            _DONE[f"{self.kind}: refused"] += 1
            self.transport.abort()
        elif self._is_open:
            self.go_on(data)
        elif data.startswith(b"HTTP/1.1 101"):
            self._is_open = True
            self.go_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        _DONE[f"{self.kind}: connections"] += 1
        self.ended.set_result(None)

    def begin(self) -> None:
        """Do the first thing."""
        self.transport.write(self.handshake())

    def go_on(self, data: bytes) -> None:
        """Do the next thing."""

    def handshake(self) -> bytes:
        """Return one that is in order."""
        key = base64.b64encode(os.urandom(16)).decode()
        return (
            "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        ).encode()

    def say(self, *messages: str) -> None:
        """Send messages, each in a frame."""
        self.transport.write(b"".join(frame(message.encode()) for message in messages))


class Garbage(Hostile):
    """Says what is neither HTTP nor, once it is open, a message."""

    kind = "garbage"

    def begin(self) -> None:
        is_http = random.random() < 0.5  # noqa: S311 - no secret
        self.transport.write(os.urandom(4096) if is_http else self.handshake())

    def go_on(self, data: bytes) -> None:
        self.say(*["{garbage" * 50] * 8)


class Slow(Hostile):
    """Takes for ever to ask."""

    kind = "slow handshakes"

    def begin(self) -> None:
        self._rest = self.handshake()
        self._drip()

    def _drip(self) -> None:
        if not self.transport.is_closing() and self._rest:
            self.transport.write(self._rest[:1])
            self._rest = self._rest[1:]
            asyncio.get_running_loop().call_later(DRIPS, self._drip)


class Churn(Hostile):
    """Subscribes and unsubscribes."""

    kind = "churn"
    _PAIR = (
        '{"op":"subscribe","sub":"a","channels":["entity:e%d"]}',
        '{"op":"unsubscribe","sub":"a"}',
    )

    def begin(self) -> None:
        self._number = 0
        super().begin()

    def go_on(self, data: bytes) -> None:
        answered = data.count(b'"op":"unsubscribed"') if self._number else CHURNS
        _DONE[f"{self.kind}: pairs"] += answered
        for _ in range(answered):
            self._number += 1
            self.say(self._PAIR[0] % self._number, self._PAIR[1])


class Replay(Hostile):
    """Reads the log from the start, again and again."""

    kind = "replay from the start"

    def begin(self) -> None:
        self._is_asked = False
        super().begin()

    def go_on(self, data: bytes) -> None:
        if not self._is_asked or b'"op":"live"' in data:
            _DONE[f"{self.kind}: replays"] += self._is_asked
            ask = '{"op":"subscribe","sub":"a","channels":["all"],"since":"start"}'
            self.say(*(['{"op":"unsubscribe","sub":"a"}'] if self._is_asked else []), ask)
            self._is_asked = True


KINDS: tuple[type[Hostile], ...] = (Garbage, Slow, Churn, Replay)


async def main(port: int) -> None:
    """Attack until told to stop."""
    tokens = json.loads(await asyncio.to_thread(sys.stdin.readline))
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_again_and_again(port, KINDS[number % len(KINDS)], token, number))
            for number, token in enumerate(tokens)
        ]
        print("attacking", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for task in running:
            task.cancel()
    print(json.dumps({**_DONE, "seconds of CPU of theirs": cpu_seconds(os.getpid())}))


async def _again_and_again(port: int, kind: type[Hostile], token: str, number: int) -> None:
    loop = asyncio.get_running_loop()
    address = f"127.0.1.{1 + number % ADDRESSES}"
    await CLOCK.sleep(random.random() * COMES_BACK)  # noqa: S311 - no secret
    while True:
        try:
            _, hostile = await loop.create_connection(
                lambda: kind(token), "127.0.0.1", port, local_addr=(address, 0)
            )
            await hostile.ended
        except OSError:
            _DONE[f"{kind.kind}: not connected"] += 1
        await CLOCK.sleep(COMES_BACK)


if __name__ == "__main__":
    os.nice(10)  # their CPU is other machines' in life: it shouldn't count here
    asyncio.run(main(int(sys.argv[1])))
