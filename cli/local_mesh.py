"""NATS, gateway and system monitor of one machine, started and stopped in order.

    start  NATS → gateway (makes the log) → ready → up.json → system monitor
    stop   up.json → system monitor → gateway (drains its clients) → NATS

Whatever ends by itself ends all of it, in the same order; the first cause is what is raised. The
server is stopped in a `finally` around everything: no failure leaves it running.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Final
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

from jarvis_mesh.cli.data_dir import DataDir, writing_to
from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.cli.failures import mesh_error_in
from jarvis_mesh.cli.listening import url_of
from jarvis_mesh.cli.local import remove_up_file, write_up_file
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.cli.supervisor import keep_log_small, keep_running
from jarvis_mesh.config.nats_conf import ADMIN, GATEWAY, USERS
from jarvis_mesh.config.settings import NATS_SECURITY, Settings
from jarvis_mesh.gateway.server import serve
from jarvis_mesh.publishers.system import SystemPublisher
from jarvis_mesh.publishers.system_monitor import INTERVAL, SystemMonitor
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import MeshError, SetupError, UnavailableError

READY_WITHIN: Final = 30.0
"""Seconds from NATS's being ready to the gateway's."""
MONITOR_SOURCE: Final = "system-monitor"
_STOP_MARGIN: Final = 5.0
"""Seconds that parts get to stop beyond what they were promised."""
_POLL: Final = 0.02
_RETRY: Final = 1.0

log = structlog.get_logger(__name__)


class LocalMesh:
    """One `mesh up`, from its first process to its last.

    Args:
        settings: Of the gateway; where NATS is gets filled in.
        server: Not started yet.
        sock: What the gateway listens on.
        with_monitor: Whether this machine's metrics are published.
        on_ready: Called once, when everything is up.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: DataDir,
        server: NatsServer,
        sock: socket.socket,
        *,
        with_monitor: bool,
        stop: StopSignals,
        clock: Clock,
        on_ready: Callable[[], None],
    ) -> None:
        self.url = url_of(sock, tls=settings.tls_cert is not None)
        self._settings = settings
        self._data_dir = data_dir
        self._server = server
        self._sock = sock
        self._with_monitor = with_monitor
        self._stop = stop
        self._clock = clock
        self._on_ready = on_ready
        self._gateway_stopping = asyncio.Event()
        self._cause: MeshError | None = None

    async def run(self) -> None:
        """Run until a signal, or until a part of it ends by itself.

        Raises:
            MeshError: why it ended by itself, or didn't start.
        """
        try:
            if await unless(self._stop.asked, self._server.start()):
                await self._run_services()
        finally:
            await self._server.stop(self._stop.hurry)
        if self._cause is not None:
            raise self._cause

    async def _run_services(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            nats = tasks.create_task(
                self._part("nats-server", keep_running(self._server, self._clock))
            )
            keeper = tasks.create_task(keep_log_small(self._data_dir.nats_log, self._clock))
            gateway = tasks.create_task(self._part("the gateway", self._serve()))
            monitor = tasks.create_task(self._part("the system monitor", self._monitor()))
            if await unless(self._stop.asked, self._wait_until_ready()):
                self._announce()
                await self._stop.asked.wait()
            log.info("stopping (once more to hurry)")
            remove_up_file(self._data_dir.path)
            await self._end(monitor)
            self._gateway_stopping.set()
            await self._let_drain(gateway)
            keeper.cancel()
            nats.cancel()

    async def _part(self, name: str, work: Coroutine[object, object, object]) -> None:
        """Do *work*; when it ends by itself, that ends everything and is the cause."""
        try:
            await work
            if not self._stop.asked.is_set():
                self._cause = self._cause or SetupError(f"{name} ended; its log above says why")
        except* MeshError as group:
            self._cause = self._cause or mesh_error_in(group)
        finally:
            self._stop.asked.set()

    async def _serve(self) -> None:
        nats_url, admin_url = (SecretStr(self._server.url(user)) for user in (GATEWAY, ADMIN))
        port = self._sock.getsockname()[1]
        settings = self._settings.model_copy(
            update={
                "nats_url": nats_url,
                "nats_admin_url": admin_url,
                "port": port,
                # Of a NATS elsewhere: ours speaks no TLS, and knows passwords alone.
                **dict.fromkeys(NATS_SECURITY),
            }
        )
        await serve(settings, self._sock, self._gateway_stopping)

    async def _monitor(self) -> None:
        if not self._with_monitor:
            await self._stop.asked.wait()
            return
        await self._wait_until_ready()  # before the log is there, nothing can be published
        while True:
            try:
                url = self._server.url(MONITOR_SOURCE)
                async with SystemPublisher.connect(url, timeout=INTERVAL) as publisher:
                    await SystemMonitor(publisher, clock=self._clock).run()
            except UnavailableError as error:
                log.warning("no metrics for now", error=error.message)
                await self._clock.sleep(_RETRY)

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not await self._is_ready():
                    await self._clock.sleep(_POLL)
        except TimeoutError:
            raise SetupError(
                f"the gateway wasn't ready within {READY_WITHIN:.0f} s; its log above says why"
            ) from None

    async def _is_ready(self) -> bool:
        """Ask /readyz. Before the gateway accepts, the question waits in the socket's queue."""
        address = urlsplit(self.url)
        tls = _our_own() if address.scheme == "https" else None
        reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=tls)
        try:
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
        finally:
            writer.close()

    def _announce(self) -> None:
        with writing_to(self._data_dir.path):
            write_up_file(
                self._data_dir.path, self.url, {user: self._server.url(user) for user in USERS}
            )
        self._on_ready()

    async def _end(self, part: asyncio.Task[None]) -> None:
        part.cancel()
        await unless(self._stop.hurry, _finished(part, _STOP_MARGIN))
        part.cancel()

    async def _let_drain(self, gateway: asyncio.Task[None]) -> None:
        within = self._settings.drain + _STOP_MARGIN
        await unless(self._stop.hurry, _finished(gateway, within))
        gateway.cancel()


def _our_own() -> ssl.SSLContext:
    """Return what accepts any certificate: we know who listens there, but maybe not its name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _finished(part: asyncio.Task[None], within: float) -> None:
    """Return when *part* is done or the time is over, without ending it."""
    await asyncio.wait({part}, timeout=within)
