"""A TCP proxy before nats-server that delays a gateway's live connection and breaks it."""

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
        self._server = server
        self._delay = delay
        self._live: set[asyncio.StreamWriter] = set()
        self._is_broken = False
        self._clock = SystemClock()

    def url(self, user: str) -> str:
        """Return the URL by which *user* connects through the proxy."""
        return self._server.url(user).replace(f":{self._server.port}", f":{self.port}")

    def break_live(self) -> None:
        """Abort the live connections."""
        for writer in tuple(self._live):
            self.breaks += 1
            writer.transport.abort()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Break the live connections, and let none come back while this lasts."""
        self._is_broken = True
        self.break_live()
        try:
            yield
        finally:
            self._is_broken = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, until either side ends it."""
        there = await asyncio.open_connection("127.0.0.1", self._server.port)
        up = self._forward(reader, there[1], client=writer)
        down = self._forward(there[0], writer)
        await asyncio.gather(up, down)

    async def _forward(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        *,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        try:
            while data := await source.read(65536):
                if client is not None and _LIVE in data:
                    self._live.add(client)
                    if self._is_broken:
                        client.transport.abort()
                        return
                if client in self._live:
                    await self._clock.sleep(self._delay)
                target.write(data)
                await target.drain()
        except OSError:
            pass  # broken on purpose
        finally:
            target.close()
            if client is not None:
                self._live.discard(client)


@asynccontextmanager
async def nats_proxy(server: NatsServer, *, delay: float) -> AsyncIterator[NatsProxy]:
    """Run a proxy on a free port."""
    proxy = NatsProxy(server, delay=delay)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        proxy.break_live()
