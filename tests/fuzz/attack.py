"""One hostile connection: what it sends, how it ends, and whether the gateway let go of it."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from jarvis_mesh.schema import SystemClock

TAKES: Final = 10.0
"""Seconds in which the gateway must take what is sent to it while its answers are read."""
LETS_GO: Final = 10.0
"""Seconds in which it must close its side, once the other side is closed."""
QUIET: Final = 0.1
"""Seconds without a byte after which no more of an answer is waited for."""
LISTENS: Final = 2.0
"""Seconds for which an answer that doesn't end is listened to."""
HEAD: Final = b"\r\n\r\n"
_CLOCK = SystemClock()


class Ending(Enum):
    """How a hostile connection ends, unless the gateway ends it."""

    HALF_CLOSE = "half close"
    """The sending side is closed; the gateway must close the other one."""
    RESET = "reset"
    """RST as soon as all is sent."""
    DEAF = "deaf"
    """Nothing is read; in the end RST."""


@dataclass(frozen=True)
class Attack:
    """What a hostile connection does."""

    kind: str
    writes: Sequence[bytes]
    """Sent one after the other."""
    ending: Ending = Ending.HALF_CLOSE
    pause: float = 0.0
    """Seconds between the writes."""
    waits: bool = False
    """Whether the first write is answered before the second one is sent."""
    must_answer: bool = False
    """Whether the gateway has to answer before it closes."""


class UnansweredError(Exception):
    """The gateway left a connection hanging."""


class Hostile:
    """Carries an attack out.

    Args:
        address: The loopback address to come from.
    """

    def __init__(self, attack: Attack, port: int, address: str) -> None:
        self._attack = attack
        self._port = port
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._first = b""
        self._has_head = asyncio.Event()
        self._received_bytes = 0
        self._heard_at = _CLOCK.monotonic()

    async def run(self) -> int:
        """Attack; return how many bytes came back.

        Raises:
            UnansweredError: the gateway neither answers nor closes.
        """
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.bind((self._address, 0))
            try:
                async with asyncio.timeout(TAKES):
                    await self._loop.sock_connect(sock, ("127.0.0.1", self._port))
            except TimeoutError:
                raise UnansweredError("it doesn't accept connections") from None
            if self._attack.ending is Ending.DEAF:
                await self._send_deaf(sock)
            else:
                await self._send_and_read(sock)
        return self._received_bytes

    async def _send_deaf(self, sock: socket.socket) -> None:
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(LISTENS):
                await self._send(sock)
                await _CLOCK.sleep(LISTENS)
        _reset(sock)

    async def _send_and_read(self, sock: socket.socket) -> None:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(sock))
            try:
                with suppress(OSError):  # it was refused before it had said all
                    await self._send_within(sock, reading)
                if self._attack.ending is Ending.RESET:
                    _reset(sock)
                    return
                await self._listen(reading)
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                await asyncio.wait({reading}, timeout=LETS_GO)
                if not reading.done():
                    raise UnansweredError(f"still open {LETS_GO:g} s after it was closed here")
            finally:
                reading.cancel()
        if self._attack.must_answer and not self._received_bytes:
            raise UnansweredError("closed without an answer")

    async def _send_within(self, sock: socket.socket, reading: asyncio.Task[None]) -> None:
        sending = self._loop.create_task(self._send(sock))
        patience = TAKES + self._attack.pause * len(self._attack.writes)
        await asyncio.wait({sending, reading}, timeout=patience, return_when="FIRST_COMPLETED")
        if sending.done():
            sending.result()
            return
        sending.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await sending
        if not reading.done():
            raise UnansweredError(f"takes nothing for {patience:g} s though its answers are read")

    async def _send(self, sock: socket.socket) -> None:
        for number, data in enumerate(self._attack.writes):
            await self._loop.sock_sendall(sock, data)
            if number == 0 and self._attack.waits and self._attack.ending is not Ending.DEAF:
                await self._has_head.wait()
            elif self._attack.pause:
                await _CLOCK.sleep(self._attack.pause)

    async def _listen(self, reading: asyncio.Task[None]) -> None:
        """Return when the answer seems to be over."""
        began = _CLOCK.monotonic()
        self._heard_at = began
        while not reading.done():
            now = _CLOCK.monotonic()
            if now - self._heard_at > QUIET or now - began > LISTENS:
                return
            await asyncio.wait({reading}, timeout=QUIET / 2)

    async def _read(self, sock: socket.socket) -> None:
        with suppress(OSError):
            while data := await self._loop.sock_recv(sock, 256 * 1024):
                self._received_bytes += len(data)
                self._heard_at = _CLOCK.monotonic()
                if not self._has_head.is_set():
                    self._first += data
                    if HEAD in self._first:
                        self._has_head.set()
        self._has_head.set()


def _reset(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def address(dice: random.Random) -> str:
    """Return a loopback address that nobody well-behaved has."""
    return f"127.0.{dice.randint(1, 3)}.{dice.randint(1, 250)}"
