"""A connection that comes back: reads, writes, notices silence, reconnects.

It knows nothing of subscriptions; what a message means is its peer's business. What was said
while there was no connection is lost: the peer says it again when the next one is opened.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from jarvis_mesh.client.backoff import pause_before
from jarvis_mesh.client.flow import Flow
from jarvis_mesh.client.formats import Format, Item
from jarvis_mesh.client.handshake import Opened, close_socket, open_socket
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import MeshError
from jarvis_mesh.schema.wire import Closing, Request, Welcome

OPEN_WITHIN: Final = 10.0
"""Seconds for a connection after the first."""
STABLE_AFTER: Final = 2.0
"""Seconds; a connection that lasted shorter counts as one more failure in a row."""
MAX_RETRY_AFTER: Final = 300.0
"""Seconds; a gateway that asks for a longer pause is visited after this one."""

log = logging.getLogger(__name__)


class Peer(Protocol):
    """What a connection is for."""

    def opened(self, welcome: Welcome) -> None:
        """Say again what the gateway has to know."""

    def receive(self, item: Item) -> None:
        """Do what one message says.

        Raises:
            MeshError: the gateway can't mean that; the connection is ended, and made anew.
        """

    def cut(self, reason: str) -> None:
        """Note that the connection is gone."""

    def failed(self, error: MeshError) -> None:
        """Note that a try to connect again failed; the next follows."""


class Link:
    """Keeps one connection to a gateway.

    Args:
        url: As `socket_url` returns it.
        form: JSON or CBOR.
        peer: Is told what comes.
        flow: While it is paused the socket isn't read.
        clock: For the pauses between tries.
    """

    def __init__(self, url: str, form: Format, peer: Peer, flow: Flow, clock: Clock) -> None:
        self._url = url
        self._form = form
        self._peer = peer
        self._flow = flow
        self._clock = clock
        self._opened: Opened | None = None
        self._outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._failures = 0
        self._retry_after: float | None = None

    async def open(self, within: float) -> None:
        """Make the first connection, which `run` then uses.

        Raises:
            UnavailableError: there is no gateway.
            UnauthorizedError, ForbiddenError: it doesn't let us in.
        """
        self._begin(await open_socket(self._url, self._form, within=within))

    async def close(self) -> None:
        """Close what `open` opened, should `run` never have come to it. Idempotent."""
        if self._opened is not None:
            await close_socket(self._opened.socket)

    def say(self, request: Request) -> None:
        """Send *request* after all that was said before, if there is a connection."""
        self.say_encoded(self._form.encode(request))

    def say_encoded(self, message: str | bytes) -> None:
        """Send what the format made of a request."""
        if self._opened is not None:
            self._outgoing.put_nowait(message)

    async def run(self) -> None:
        """Serve one connection after the other, until cancelled."""
        while True:
            if self._opened is None:
                await self._open_again()
            else:
                started = self._clock.monotonic()
                reason = await self._serve(self._opened, self._outgoing)
                if self._clock.monotonic() - started >= STABLE_AFTER:
                    self._failures = 0
                log.debug("connection to %s lost: %s", self._url, reason)
                self._opened = None
                self._peer.cut(reason)
                await self._pause()

    async def _open_again(self) -> None:
        try:
            self._begin(await open_socket(self._url, self._form, within=OPEN_WITHIN))
        except MeshError as error:
            self._peer.failed(error)
            await self._pause()

    def _begin(self, opened: Opened) -> None:
        self._opened = opened
        self._outgoing = asyncio.Queue()  # what was meant for an earlier connection is void
        self._peer.opened(opened.welcome)

    async def _pause(self) -> None:
        """Wait before the next try, as long as the gateway asked for or luck will have it."""
        asked_for, self._retry_after = self._retry_after, None
        pause = pause_before(self._failures) if asked_for is None else asked_for
        self._failures += 1
        await self._clock.sleep(pause)

    async def _serve(self, opened: Opened, outgoing: asyncio.Queue[str | bytes]) -> str:
        """Use a connection until it ends; return why it did."""
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(_write(opened.socket, outgoing))
                try:
                    return await self._converse(opened)
                finally:
                    writer.cancel()
        finally:
            await close_socket(opened.socket)

    async def _converse(self, opened: Opened) -> str:
        try:
            for item in opened.rest:
                self._receive(item)
            return await self._read(opened.socket, 2 * opened.welcome.heartbeat_s)
        except MeshError as error:
            return f"the gateway broke the protocol: {error.message}"

    async def _read(self, socket: ClientConnection, silence: float) -> str:
        """Pass on what comes, as fast as it is taken; return why the connection ended."""
        while True:
            await self._flow.wait()
            try:
                async with asyncio.timeout(silence):
                    message = await socket.recv()
            except TimeoutError:
                return f"nothing came for {silence:g} s"
            except ConnectionClosed as error:
                return _describe(error)
            # All of a message is decoded before any of it counts: if it is malformed,
            # the cursors are still where they were.
            for item in tuple(self._form.decode(message)):
                self._receive(item)

    def _receive(self, item: Item) -> None:
        if isinstance(item, Closing):
            self._retry_after = min(max(item.retry_ms, 0) / 1000, MAX_RETRY_AFTER)
        else:
            self._peer.receive(item)


async def _write(socket: ClientConnection, outgoing: asyncio.Queue[str | bytes]) -> None:
    try:
        while True:
            await socket.send(await outgoing.get())
    except ConnectionClosed:
        return  # the reader sees it too, and says why


def _describe(closed: ConnectionClosed) -> str:
    if closed.rcvd is None:
        return "the connection broke"
    reason = f" {closed.rcvd.reason}" if closed.rcvd.reason else ""
    return f"closed by the gateway ({closed.rcvd.code}{reason})"
