"""A gateway on a free port, in the test's own process."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.cli.listening import listen
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.server import serve
from tests.support.ports import free_port
from tests.support.waiting import wait_until


class RunningGateway:
    """A real gateway behind a real socket."""

    def __init__(self, settings: Settings, stopping: asyncio.Event) -> None:
        self.settings = settings
        scheme = "http" if settings.tls_cert is None else "https"
        self.url = f"{scheme}://127.0.0.1:{settings.port}"
        self._stopping = stopping
        self.is_listening: Callable[[], bool] = lambda: True
        """Whether its port is still taken."""

    def drain(self) -> None:
        """Do what SIGTERM does."""
        self._stopping.set()

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status and text of a GET."""
        return await asyncio.to_thread(_get, f"{self.url}{path}", headers)

    async def ready(self) -> None:
        """Return once /readyz says so."""
        while (await self.get("/readyz"))[0] != 200:
            await wait_until(lambda: True)


@asynccontextmanager
async def gateway(nats_server: NatsServer, **settings: Any) -> AsyncIterator[RunningGateway]:
    """Run a gateway on a free port; *settings* replace the defaults."""
    sock = listen("127.0.0.1", settings.pop("port", None) or free_port(), is_open=False)
    defaults = {
        "nats_url": nats_server.url("gateway"),
        "nats_admin_url": nats_server.url("admin"),
        "port": sock.getsockname()[1],
        "drain": 2.0,
    }
    stopping = asyncio.Event()
    running = RunningGateway(Settings(**{**defaults, **settings}), stopping)
    running.is_listening = lambda: sock.fileno() >= 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(running.settings, sock, stopping))
        try:
            yield running
        finally:
            stopping.set()


def _get(url: str, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own http URL
    # Tests of what a client trusts make their own connections.
    anybody = ssl._create_unverified_context()  # noqa: S323
    try:
        with urllib.request.urlopen(request, timeout=5, context=anybody) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
