"""A TCP proxy before nats-server that does to a gateway's live connection what networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import SystemClock

_LIVE = b"mesh-gateway-live"


class NatsProxy:
    """Forwards to *server*; only connections that say they are for live copies are disturbed.

    Args:
        delay: Seconds that what the gateway says is held back, so that its SUBs come late.
    """

    def __init__(self, server: NatsServer, *, delay: float) -> None:
        self.port = 0
        self.breaks = 0
        self.dropped = 0
        self._server = server
        self._delay = delay
        self._live: set[Connection] = set()
        self._is_broken = False
        self._to_drop: list[bytes] = []

    def url(self, user: str) -> str:
        """Return the URL by which *user* connects through the proxy."""
        return self._server.url(user).replace(f":{self._server.port}", f":{self.port}")

    def break_live(self) -> None:
        """Abort the live connections."""
        for connection in tuple(self._live):
            self.breaks += 1
            connection.abort()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Break the live connections, and let none come back while this lasts."""
        self._is_broken = True
        self.break_live()
        try:
            yield
        finally:
            self._is_broken = False

    def silence_live(self) -> None:
        """Swallow whatever the live connections say and hear, as if a cable was cut.

        Their sockets stay open; new connections work.
        """
        for connection in self._live:
            connection.is_silent = True

    def drop_next(self, subject: str) -> None:
        """Drop the next message on *subject*, each copy of it, as a full buffer between servers."""
        self._to_drop.append(subject.encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, until either side ends it."""
        there = await asyncio.open_connection("127.0.0.1", self._server.port)
        connection = Connection(writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward_up(reader, there[1], connection))
                tasks.create_task(self._forward_down(there[0], writer, connection))
        except* OSError:
            pass  # broken on purpose
        finally:
            self._live.discard(connection)
            for each in (there[1], writer):
                each.close()

    async def _forward_up(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, connection: Connection
    ) -> None:
        while data := await source.read(65536):
            if _LIVE in data:
                self._live.add(connection)
                if self._is_broken:
                    connection.abort()
            if connection in self._live:
                await SystemClock().sleep(self._delay)
            if not connection.is_silent:
                target.write(data)
                await target.drain()
        raise ConnectionResetError("ended")

    async def _forward_down(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, connection: Connection
    ) -> None:
        while line := await source.readline():
            message = line + await _payload_of(line, source)
            if connection in self._live and self._is_to_drop(line):
                self.dropped += 1
            elif not connection.is_silent:
                target.write(message)
                await target.drain()
        raise ConnectionResetError("ended")

    def _is_to_drop(self, line: bytes) -> bool:
        return line.startswith((b"MSG ", b"HMSG ")) and line.split()[1] in self._to_drop


class Connection:
    """One connection of a gateway."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.is_silent = False
        self._writer = writer

    def abort(self) -> None:
        self._writer.transport.abort()


async def _payload_of(line: bytes, source: asyncio.StreamReader) -> bytes:
    """Return what follows a line of the NATS protocol: a message's payload, or nothing."""
    if not line.startswith((b"MSG ", b"HMSG ")):
        return b""
    return await source.readexactly(int(line.split()[-1]) + len(b"\r\n"))


@asynccontextmanager
async def nats_proxy(server: NatsServer, *, delay: float) -> AsyncIterator[NatsProxy]:
    """Run a proxy on a free port."""
    proxy = NatsProxy(server, delay=delay)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        proxy.break_live()
