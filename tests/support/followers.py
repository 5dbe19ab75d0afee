"""Clients that never stop: they resume, at any gateway, whatever happens to their connections.

Each can be hurt in the ways that laptops and networks know. What they get is judged by a
`Reading`. How long they wait, and which gateway they take, they leave to the `Random` they have.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

import h11
import websockets

from jarvis_mesh.schema import SystemClock
from tests.support.oracle import Reading
from tests.support.subscription import PROTOCOL, Message, Subscription, Violation

RECEIVE_BUFFER = 16 * 1024
"""Bytes that the kernel keeps for a client: little, so that one which stalls is noticed."""
SILENCE = 8.0
"""Seconds without a word after which a connection counts as dead; heartbeats come every one."""
ALLOWED_CODES = frozenset({1000, 1001, 1006, 1012, 1013})
"""Close codes that say nothing bad of gateway or client."""
RETRY_AFTER = 0.2
"""Seconds after which a subscription is asked for again that was refused for the moment."""
MAX_LEFT = 2
"""Half-open connections that a client leaves behind before the first is cut."""
ABANDONED = "abandoned"
Receive = Callable[[], Awaitable[list[Message]]]
_CLOCK = SystemClock()


class Journal:
    """What all followers of a run write into."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.ids: dict[tuple[str, int], str] = {}
        """Which event came as which sequence of which epoch."""
        self.connections = 0
        self.lagged = 0
        self.closed: dict[str, int] = {}
        """How often a connection ended how."""

    def note_end(self, how: str) -> None:
        self.closed[how] = self.closed.get(how, 0) + 1


class Follower(ABC):
    """One client with its subscriptions.

    Args:
        name: Names it in violations.
        subscriptions: By name.
        gateways: URLs of the gateways, of which it takes any.
        chance: Its own dice.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        name: str,
        subscriptions: dict[str, Subscription],
        gateways: Sequence[str],
        journal: Journal,
        chance: random.Random,
    ) -> None:
        self.name = name
        self.subscriptions = subscriptions
        self.retired: list[Subscription] = []
        """Subscriptions that were closed, with all that they had until then."""
        self.journal = journal
        self.connections = 0
        self.reading: Reading | None = None
        self._gateways = tuple(gateways)
        self._chance = chance
        self._url = self._gateways[0]
        self._bound_for: str | None = None
        self._transport: asyncio.Transport | None = None
        self._flowing, self._allowed = _set_event(), _set_event()
        self._abandoned = asyncio.Event()
        self._left: list[tuple[asyncio.Transport, AsyncExitStack]] = []

    # What can happen to it

    def cut(self) -> None:
        """Break the connection by RST: what is under way is lost, on both sides."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            with suppress(OSError):  # it is closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    async def stall(self, seconds: float) -> None:
        """Take nothing for so long, then read on."""
        self.stop_taking()
        try:
            await _CLOCK.sleep(seconds)
        finally:
            self.take_again()

    def stop_taking(self) -> None:
        """Take nothing until `take_again`."""
        self._flowing.clear()

    def take_again(self) -> None:
        """Read on."""
        self._flowing.set()

    def abandon(self) -> None:
        """Leave the connection half open, as a laptop does that falls asleep, and make another."""
        self._abandoned.set()

    async def move(self) -> None:
        """Close the connection properly, and go to the next gateway."""
        here = self._gateways.index(self._url)
        self._bound_for = self._gateways[(here + 1) % len(self._gateways)]
        await self._hang_up()

    @abstractmethod
    async def renew(self, since: Any) -> None:
        """Close one of its subscriptions, and open it again as a new one that starts at *since*."""

    def hold(self) -> None:
        """Be cut, and stay away until `release`."""
        self._allowed.clear()
        self.cut()

    def release(self) -> None:
        """Come back."""
        self._allowed.set()

    # Its life

    @property
    def is_live(self) -> bool:
        """Whether all its subscriptions get live events now."""
        return self.reading is not None and self.reading.is_live()

    def has_all(self, last_seq: int, epoch: str | None = None) -> bool:
        """Say whether it is live, and past a place in the log with every subscription.

        Args:
            epoch: Which log; `None` when there never was another.
        """
        return self.is_live and all(
            sub.has_all(last_seq, epoch) for sub in self.subscriptions.values()
        )

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                await self._allowed.wait()
                await self._follow_once()
                await _CLOCK.sleep(self._pause())
        finally:
            while self._left:
                await self._let_go()

    def _pause(self) -> float:
        closing = None if self.reading is None else self.reading.closing
        self.reading = None
        least = 0 if closing is None else closing["retry_ms"] / 1000
        return least + self._chance.uniform(0.02, 0.2)

    async def _follow_once(self) -> None:
        """Connect, resume, and read until the connection ends or is abandoned."""
        self._abandoned.clear()
        async with AsyncExitStack() as stack:
            how = await self._connect_and_read(stack)
            self.journal.note_end(how)
            if self.reading is not None:
                self.journal.lagged += self.reading.lagged
            if how == ABANDONED and self._transport is not None:
                self._left.append((self._transport, stack.pop_all()))
            self._transport = None
        if len(self._left) > MAX_LEFT:
            await self._let_go()

    async def _connect_and_read(self, stack: AsyncExitStack) -> str:
        """Return how the connection ended."""
        self._url, self._bound_for = self._bound_for or self._chance.choice(self._gateways), None
        try:
            async with asyncio.timeout(SILENCE):
                receive = await self._connect(self._url, stack)
        except (OSError, EOFError, TimeoutError, h11.ProtocolError, websockets.WebSocketException):
            return "not made"
        self.connections += 1
        self.journal.connections += 1
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._take_all(receive))
            abandoned = tasks.create_task(self._abandoned.wait())
            await asyncio.wait({reading, abandoned}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            abandoned.cancel()
        return ABANDONED if reading.cancelled() else reading.result()

    async def _take_all(self, receive: Receive) -> str:
        """Take messages until there are no more; return how that came."""
        reading = self.reading
        assert reading is not None
        try:
            while True:
                await self._flowing.wait()
                async with asyncio.timeout(SILENCE):
                    messages = await receive()
                for message in messages:
                    reading.take(message)
                await self._ask_again(reading)
        except websockets.ConnectionClosed as closed:
            return self._end_of(closed)
        except TimeoutError:
            return "silent"
        except (OSError, EOFError, h11.ProtocolError):
            return "broken"

    def _end_of(self, closed: websockets.ConnectionClosed) -> str:
        code = closed.rcvd.code if closed.rcvd else 1006
        if code not in ALLOWED_CODES:
            self.blame(PROTOCOL, f"closed with {code} {closed.rcvd and closed.rcvd.reason}")
        return str(code)

    async def _let_go(self) -> None:
        transport, stack = self._left.pop(0)
        transport.abort()
        await stack.aclose()

    def start_reading(self, *, implicit: bool = False) -> Reading:
        """Return the judge of a connection just made."""
        self.reading = Reading(
            self.subscriptions,
            f"{self.name}, connection {self.connections + 1} to {self._url}",
            self.journal.violations.append,
            self.journal.ids,
            implicit=implicit,
        )
        return self.reading

    def blame(self, kind: str, what: str) -> None:
        """Note a violation that is no message's."""
        self.journal.violations.append(Violation(kind, what, self.name))

    @abstractmethod
    async def _connect(self, url: str, stack: AsyncExitStack) -> Receive:
        """Connect and resume; return what gives the next messages."""

    @abstractmethod
    async def _hang_up(self) -> None:
        """Close the connection as a well-bred client does."""

    def _retire(self, name: str, since: Any) -> None:
        """Let a subscription be over, and a new one of its channels begin at *since*."""
        self.retired.append(self.subscriptions[name])
        self.subscriptions[name] = Subscription(self.subscriptions[name].channels, since)

    async def _ask_again(self, reading: Reading) -> None:
        """Subscribe to what isn't open, and could be.

        Raises:
            EOFError: there is no way but another connection.
        """
        if reading.refused:
            raise EOFError


async def open_socket(url: str) -> socket.socket:
    """Return a socket connected to a gateway that takes little ahead of its reader."""
    address = urlsplit(url)
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
