"""The gateway of one process: two connections to NATS, the live feed, and its clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.connection import Connection
from jarvis_mesh.gateway.fanout import Fanout
from jarvis_mesh.gateway.inbox import Inbox
from jarvis_mesh.gateway.live_feed import LiveFeed
from jarvis_mesh.gateway.log_reader import LogReader
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.publishing import Publishing
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.ticker import Ticker
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import MeshError, SetupError, UnavailableError
from jarvis_mesh.schema.types import TypeRegistry

RETRY: Final = 0.5
"""Seconds between attempts at what needs NATS."""
RESTARTING: Final = 1012
"""WebSocket close code: come back, the service restarts (IANA registry)."""

log = structlog.get_logger(__name__)


class Gateway:
    """Everything behind the sockets. `run` is its life; it serves once `is_ready`."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.is_draining = False
        self.failed = asyncio.Event()
        """Set when `run` ended by an error: the process should be replaced."""
        self.failure: Exception | None = None
        self._clock = clock or SystemClock()
        self._live_nats = NatsConnection()
        self._log_nats = NatsConnection()
        self._live_inbox = Inbox(self._live_nats)
        self._log_inbox = Inbox(self._log_nats)
        self._reconnected = asyncio.Event()
        self._connections: set[Connection] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        reader = LogReader(self._log_inbox)
        name = f"{socket.gethostname()[:32]}-{settings.port}"
        live = LiveFeed(self._live_nats, reader, LogReader(self._live_inbox), name, self._end_all)
        types = TypeRegistry(settings.families, allow_unregistered=True)
        self._ticker = Ticker(live, reader, self._clock)
        self.services = Services(
            live=live,
            reader=reader,
            publishing=Publishing(self._live_inbox, types, self._clock),
            fanout=Fanout(),
            clock=self._clock,
            heartbeat=settings.heartbeat,
        )

    @property
    def is_ready(self) -> bool:
        """Whether it can serve: NATS connected, the log there, not draining."""
        return (
            self._live_nats.is_connected
            and self._log_nats.is_connected
            and self._ticker.log_is_there
            and not self.is_draining
        )

    async def run(self) -> None:
        """Connect to NATS and keep the live feed going, until cancelled.

        Raises:
            SetupError: the log can't be made as the settings say, or NATS is too old.
        """
        try:
            await self._make_log()
            await self._connect()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.services.live.barrier.run())
                tasks.create_task(self._ticker.run())
                tasks.create_task(self._repair_after_breaks())
                tasks.create_task(self._send_heartbeats())
        except SetupError as error:
            self._fail(error)
        except Exception as error:
            log.exception("the gateway failed")
            self._fail(error)
        finally:
            await self._live_nats.shut()
            await self._log_nats.shut()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.failed.set()

    @contextmanager
    def serving(self, connection: Connection) -> Iterator[None]:
        """Count *connection* among the clients while it lasts."""
        self._connections.add(connection)
        self._nobody.clear()
        try:
            yield
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._nobody.set()

    async def drain(self) -> None:
        """Send all clients away and return when they are gone, or after the drain time."""
        self.is_draining = True
        log.info("draining", connections=len(self._connections))
        self._end_all("draining")
        try:
            async with asyncio.timeout(self.settings.drain):
                await self._nobody.wait()
        except TimeoutError:
            log.warning("drained not wholly", connections=len(self._connections))

    def _end_all(self, reason: str) -> None:
        for connection in tuple(self._connections):
            connection.end(reason, RESTARTING)

    async def _make_log(self) -> None:
        admin_url = self.settings.nats_admin_url
        if admin_url is None:
            return
        said = ""
        while True:
            try:
                await set_up_log(admin_url.get_secret_value(), self.settings.log)
            except UnavailableError as error:
                if error.message != said:
                    log.warning("no log yet", error=error.message)
                said = error.message
                await self._clock.sleep(RETRY)
            else:
                return

    async def _connect(self) -> None:
        url = self.settings.nats_url.get_secret_value()
        await self._live_nats.open(
            url,
            name="mesh-gateway-live",
            on_disconnected=self._on_live_disconnected,
            on_reconnected=self._on_live_reconnected,
        )
        await self._log_nats.open(
            url,
            name="mesh-gateway-log",
            on_disconnected=self._on_log_disconnected,
            on_reconnected=_nothing,
        )
        await self._live_inbox.open()
        await self._log_inbox.open()
        await self.services.live.open()
        log.info("connected to NATS")

    async def _on_live_disconnected(self) -> None:
        self._live_inbox.fail_all()
        await self.services.live.on_disconnected()

    async def _on_live_reconnected(self) -> None:
        self._reconnected.set()

    async def _on_log_disconnected(self) -> None:
        self._log_inbox.fail_all()

    async def _repair_after_breaks(self) -> None:
        while True:
            await self._reconnected.wait()
            self._reconnected.clear()
            try:
                await self.services.live.repair()
            except MeshError as error:
                log.warning("the live feed isn't repaired yet", error=error.message)
                self._reconnected.set()
                await self._clock.sleep(RETRY)

    async def _send_heartbeats(self) -> None:
        heartbeat = self.settings.heartbeat
        while True:
            await self._clock.sleep(min(1.0, heartbeat / 4))
            silent_since = self._clock.monotonic() - heartbeat
            for connection in tuple(self._connections):
                connection.heartbeat(silent_since)


async def _nothing() -> None:
    pass
