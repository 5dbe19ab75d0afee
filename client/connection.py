"""A connection that comes back: reads, writes, notices silence, reconnects.

It knows nothing of subscriptions; what a message means is its peer's business. What was said
while there was no connection is lost: the peer says it again when the next one is opened.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol, TypeGuard

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from jarvis_mesh.client.backoff import pause_before
from jarvis_mesh.client.credentials import Credentials
from jarvis_mesh.client.flow import Flow
from jarvis_mesh.client.formats import Arrival, Format, Item
from jarvis_mesh.client.handshake import Opened, close_socket, open_socket
from jarvis_mesh.client.renewal import Renewal
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import MeshError, UnauthorizedError
from jarvis_mesh.schema.wire import Closing, Error, Request, Welcome

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
        """Note that a try to connect again, or to renew the token, failed; the next follows."""


class Link:
    """Keeps one connection to a gateway.

    Args:
        url: As `socket_url` returns it.
        form: JSON or CBOR.
        peer: Is told what comes.
        flow: While it is paused the socket isn't read.
        clock: For the pauses between tries, and for when tokens expire.
        credentials: Give the token for each connection.
    """

    def __init__(
        self,
        url: str,
        form: Format,
        peer: Peer,
        flow: Flow,
        clock: Clock,
        credentials: Credentials,
    ) -> None:
        self._url = url
        self._form = form
        self._peer = peer
        self._flow = flow
        self._clock = clock
        self._credentials = credentials
        self._opened: Opened | None = None
        self._outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._failures = 0
        self._retry_after: float | None = None
        self._renewal = self._new_renewal()
        self._rejected: UnauthorizedError | None = None
        """Why the gateway is about to close this connection."""

    async def open(self, within: float) -> None:
        """Make the first connection, which `run` then uses.

        Raises:
            UnavailableError: there is no gateway.
            UnauthorizedError, ForbiddenError: it doesn't let us in.
        """
        self._begin(await self._connect(within))

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
        """Serve one connection after the other, until cancelled.

        Raises:
            UnauthorizedError: the gateway doesn't take the token, and there is no other.
        """
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
                self._note_rejection()
                self._peer.cut(reason)
                await self._pause()

    async def _open_again(self) -> None:
        try:
            self._begin(await self._connect(OPEN_WITHIN))
        except MeshError as error:
            if isinstance(error, UnauthorizedError) and not self._credentials.can_renew:
                raise
            self._peer.failed(error)
            await self._pause()

    async def _connect(self, within: float) -> Opened:
        token = await self._credentials.token(within)
        return await open_socket(self._url, self._form, within=within, token=token)

    def _begin(self, opened: Opened) -> None:
        self._opened = opened
        self._outgoing = asyncio.Queue()  # what was meant for an earlier connection is void
        self._renewal = self._new_renewal()
        self._credentials.welcomed(opened.welcome)
        self._peer.opened(opened.welcome)

    def _new_renewal(self) -> Renewal:
        return Renewal(self._credentials, self._clock, self.say, self._peer.failed)

    def _note_rejection(self) -> None:
        """Go on with a fresh token where the gateway ended the connection for want of one.

        Raises:
            UnauthorizedError: there is no other.
        """
        rejected, self._rejected = self._rejected, None
        if rejected is None:
            return
        if not self._credentials.can_renew:
            raise rejected
        self._peer.failed(rejected)
        if not self._failures:  # else fresh tokens aren't taken either, and haste won't help
            self._retry_after = 0

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
                renewal = tasks.create_task(self._renewal.run(opened.welcome.expires))
                try:
                    return await self._converse(opened)
                finally:
                    writer.cancel()
                    renewal.cancel()
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
        if isinstance(item, Arrival):  # nearly all are
            self._peer.receive(item)
        elif isinstance(item, Closing):
            self._retry_after = min(max(item.retry_ms, 0) / 1000, MAX_RETRY_AFTER)
        elif _is_rejection(item):
            self._rejected = UnauthorizedError(item.message)
        elif not self._renewal.receive(item):
            self._peer.receive(item)


def _is_rejection(item: Item) -> TypeGuard[Error]:
    """Say whether the gateway ends the connection because of its token."""
    return (
        isinstance(item, Error)
        and item.id is None
        and item.sub is None
        and item.code == UnauthorizedError.code
    )


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
