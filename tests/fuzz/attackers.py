"""Who throws it: sessions over raw sockets, each from a seed of its own, none longer than a few
seconds. What comes back is read and thrown away; that the gateway ends what it should is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from random import Random
from typing import Final

import nats

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import SystemClock
from tests.fuzz.bytes_on_the_wire import Bytes, frame
from tests.support.tokens import token_for

SESSION: Final = 3.0
"""Seconds that a session lasts at most."""
PATIENCE: Final = 12.0
"""Seconds in which the gateway has to end what says nothing more."""
KINDS: Final = (
    *("frames", "frames", "messages", "messages", "http", "http"),
    *("churn", "silent", "slow", "cut"),
)
_CHURN: Final = (
    b'{"op":"subscribe","sub":"%d","channels":["entity:e%d"],"since":"start"}\n'
    b'{"op":"unsubscribe","sub":"%d"}'
)
_RESET: Final = b"\x01\0\0\0\0\0\0\0"
"""SO_LINGER: on, for no time; closing then sends RST instead of FIN (socket(7))."""


class Attackers:
    """Throws at the gateway on *port* until cancelled.

    Args:
        seed: Of everything; what a session does follows from it and the session's number.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.sessions: Counter[str] = Counter()
        self.hung: list[str] = []
        """Sessions that the gateway should have ended and didn't."""
        self._port = port
        self._seed = seed
        self._number = 0
        self._clock = SystemClock()

    async def run(self) -> None:
        """Have one session after the other."""
        while True:
            self._number += 1
            random = Random(f"{self._seed}:{self._number}")
            kind = random.choice(KINDS)
            self.sessions[kind] += 1
            with contextlib.suppress(OSError):  # the gateway may close it at any time
                await self._session(kind, random)

    async def _session(self, kind: str, random: Random) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.timeout(SESSION):
                await self._attack(kind, Bytes(random), reader, writer)
        except TimeoutError:
            if kind == "slow":
                await self._expect_end(f"{self._seed}:{self._number}", reader)
        finally:
            if random.random() < 0.5:
                with contextlib.suppress(OSError):  # closed already; and a cancellation must pass
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _attack(
        self, kind: str, made: Bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        random = made.random
        match kind:
            case "http":
                requests = [made.request() for _ in range(random.choice([1, 1, 5]))]
                await self._write(writer, b"".join(requests))
            case "slow":
                for byte in made.request()[: random.randint(1, 60)]:
                    writer.write(bytes([byte]))
                    await self._clock.sleep(0.02)
            case "cut":
                whole = made.handshake(token=True) + made.frame()
                await self._write(writer, whole[: random.randint(0, len(whole))])
                return
            case _:
                first = made.handshake(token=random.random() < 0.8)
                if random.random() < 0.3:
                    first += made.frame()  # in the same segment
                await self._write(writer, first)
                await self._talk(kind, made, writer)
                if kind == "silent":
                    await asyncio.Event().wait()  # takes nothing, says nothing
        if kind != "slow":
            writer.write_eof()
        while await reader.read(65_536):
            pass

    async def _talk(self, kind: str, made: Bytes, writer: asyncio.StreamWriter) -> None:
        random = made.random
        if kind == "churn":
            token = token_for("fuzz", subscribe=["all"], expires_in=30)
            await self._write(writer, frame(1, b'{"op":"auth","token":"%s"}' % token.encode()))
            for number in range(random.choice([50, 400])):
                await self._write(writer, frame(1, _CHURN % (number, number, number)))
            return
        for _ in range(random.choice([1, 5, 30])):
            payload = made.messages.text() if random.random() < 0.5 else made.messages.binary()
            is_text = random.random() < 0.5
            whole = frame(1 if is_text else 2, payload)
            await self._write(writer, whole if kind == "messages" else made.frame())

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def _expect_end(self, name: str, reader: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while await reader.read(65_536):
                    pass
        except TimeoutError:
            self.hung.append(name)


async def publish_odd_bodies(server: NatsServer, seed: int) -> None:
    """Write to the log what a publisher may, but shouldn't, until cancelled."""
    made, number, clock = Bytes(Random(seed)), 0, SystemClock()
    client = await nats.connect(server.url("agent-service"), inbox_prefix="_INBOX.agent-service")
    try:
        while True:
            number += 1
            body = made.messages.binary()[:100_000]
            subject = f"agent.created._.agent-service.e{number % 7}.fuzz.s"
            headers = {"Nats-Stream": "EVENTS", "Nats-Sequence": "1"} if number % 5 == 0 else {}
            await client.publish(subject, body, headers=headers)
            await clock.sleep(0.02)
    finally:
        await client.close()
