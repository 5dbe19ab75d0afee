"""The gateway of one process: two connections to NATS, the live feed, and its clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import structlog

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.deadlines import Deadlines
from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.fanout import Fanout
from jarvis_mesh.gateway.flusher import Flusher
from jarvis_mesh.gateway.guard import Guard
from jarvis_mesh.gateway.inbox import Inbox
from jarvis_mesh.gateway.key_store import KeyStore
from jarvis_mesh.gateway.limits import ClientLimits, Visit
from jarvis_mesh.gateway.live_feed import LiveFeed
from jarvis_mesh.gateway.log_pages import LogPages
from jarvis_mesh.gateway.log_reader import LogReader, LogState
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.publishing import Publishing
from jarvis_mesh.gateway.replay_age import ReplayAge
from jarvis_mesh.gateway.revocations import Revocations
from jarvis_mesh.gateway.service_calls import ServiceCalls
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.ticker import Ticker
from jarvis_mesh.gateway.tokens import Tokens
from jarvis_mesh.gateway.turns import Turns
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import MeshError, SetupError, UnavailableError
from jarvis_mesh.schema.types import TypeRegistry

RETRY: Final = 0.25
"""Seconds between attempts at what needs NATS."""
CLIENTS_AT_ONCE: Final = 250
"""Clients that are looked after in one go, which takes a millisecond."""
CUT_WITHIN: Final = 1.0
"""Seconds for connections that are cut to be gone."""
RESTARTING: Final = 1012
"""WebSocket close code: come back, the service restarts (IANA registry)."""

log = structlog.get_logger(__name__)


class Client(Protocol):
    """Whoever is served: over a WebSocket, a stream, or with one page."""

    @property
    def is_lagging(self) -> bool:
        """Whether it is being caught up from the log."""

    @property
    def subscriptions(self) -> int:
        """How many it has open."""

    @property
    def grants(self) -> Grants | None:
        """What it may see and say; `None` until it is authenticated."""

    @property
    def visit(self) -> Visit:
        """What it has taken of what is limited."""

    def fall_behind(self) -> None:
        """Let what is live go on from the log: the live feed has a hole."""

    def look_after(self, now: float, silent_after: float) -> None:
        """Do what is due now and then."""

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """Send it away."""

    def deauthorize(self, message: str, reason: str) -> None:
        """Send it away, as it may no longer be served."""

    def abort(self) -> None:
        """Cut the connection. Idempotent."""


class Gateway:
    """Everything behind the sockets. `run` is its life; it serves once `is_ready`."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.is_draining = False
        self.tasks = asyncio.TaskGroup()
        """Owns what runs for single clients; entered by whoever runs the gateway."""
        self.failed = asyncio.Event()
        """Set when `run` ended by an error: the process should be replaced."""
        self.failure: Exception | None = None
        self._clock = clock or SystemClock()
        self._live_nats = NatsConnection()
        self._log_nats = NatsConnection()
        self._live_inbox = Inbox(self._live_nats)
        self._log_inbox = Inbox(self._log_nats)
        self._clients: dict[Client, None] = {}
        self._nobody = asyncio.Event()
        self._nobody.set()
        self.guard = Guard(
            settings.allowed_origins, settings.allowed_hosts, any_address=settings.may_be_reached
        )
        self.metrics = Metrics()
        reader = LogReader(self._log_inbox)
        here = LogReader(self._live_inbox)
        self._pages = LogPages(reader, self._clock, self._observe, self.metrics)
        name = f"{socket.gethostname()[:32]}-{settings.port}"
        live = LiveFeed(self._live_nats, here, self._pages, name, self, self.metrics, self._clock)
        types = TypeRegistry(settings.families, allow_unregistered=True)
        self._ticker = Ticker(live, reader, self._clock)
        self.revocations = Revocations(self._log_inbox, self._end_revoked, self._clock)
        self.keys = KeyStore.of(settings, self._clock)
        self.services = Services(
            live=live,
            pages=self._pages,
            reader=reader,
            publishing=Publishing(self._live_inbox, types, self._clock),
            calls=ServiceCalls(self._live_inbox),
            tokens=Tokens(settings, self.keys, self.revocations, self._clock),
            deadlines=Deadlines(self._clock),
            limits=ClientLimits(settings, self._clock),
            replay_age=ReplayAge(settings.max_replay_age, reader, self._clock),
            fanout=Fanout(Flusher(self._clock, settings.flush_interval)),
            encoded_runs=EncodedRuns(),
            metrics=self.metrics,
            turns=Turns(self._clock),
            clock=self._clock,
            settings=settings,
        )
        self._show_gauges()

    @property
    def is_ready(self) -> bool:
        """Whether it can serve: NATS connected, the log there, revocations read, not draining."""
        return (
            self._live_nats.is_connected
            and self._log_nats.is_connected
            and self._ticker.log_is_there
            and (self.revocations.are_known or not self.settings.has_authentication)
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
                tasks.create_task(self.services.live.run())
                tasks.create_task(self._pages.run())
                tasks.create_task(self._ticker.run())
                tasks.create_task(self._repair_holes())
                tasks.create_task(self._look_after_clients())
                tasks.create_task(self.services.deadlines.run())
                if self.settings.has_authentication:
                    tasks.create_task(self.keys.run())
                    tasks.create_task(self.revocations.run())
                tasks.create_task(_look_after(self._live_nats, self._live_inbox))
                tasks.create_task(_look_after(self._log_nats, self._log_inbox))
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

    def add(self, client: Client) -> None:
        """Count *client* among those that are served."""
        self._clients[client] = None
        self._nobody.clear()
        # What happened to all while this one was on its way in happens to it too.
        if client.grants is not None and self.revocations.cover(client.grants):
            client.deauthorize("the token was revoked", "revoked")
        elif self.is_draining:
            client.end("draining", RESTARTING)

    def remove(self, client: Client) -> None:
        """Undo `add`. Idempotent."""
        if client in self._clients:
            del self._clients[client]
            client.visit.end()
        if not self._clients:
            self._nobody.set()

    @contextmanager
    def serving(self, client: Client) -> Iterator[None]:
        """Count *client* among those that are served while it lasts."""
        self.add(client)
        try:
            yield
        finally:
            self.remove(client)

    async def drain(self) -> None:
        """Send all clients away and return when they are gone, or after the drain time."""
        self.is_draining = True
        log.info("draining", clients=len(self._clients))
        self._end_all("draining")
        try:
            async with asyncio.timeout(self.settings.drain):
                await self._nobody.wait()
        except TimeoutError:
            log.warning("drained not wholly: cutting the rest", clients=len(self._clients))
            for client in tuple(self._clients):
                client.abort()
            with suppress(TimeoutError):  # the server ends what is left even then
                async with asyncio.timeout(CUT_WITHIN):
                    await self._nobody.wait()

    # As the live feed sees it

    def on_hole(self) -> None:
        """Let every client catch up from the log: a hole is too large to be repaired."""
        for client in tuple(self._clients):
            client.fall_behind()

    def on_another_log(self, reason: str) -> None:
        """Send all clients away: they come back and learn what is missing."""
        self._pages.forget()
        self._end_all(reason)

    def _observe(self, state: LogState) -> None:
        self.services.live.observe(state)

    def _end_revoked(self) -> None:
        for client in tuple(self._clients):
            if client.grants is not None and self.revocations.cover(client.grants):
                client.deauthorize("the token was revoked", "revoked")

    def _end_all(self, reason: str) -> None:
        for client in tuple(self._clients):
            client.end(reason, RESTARTING)

    async def _make_log(self) -> None:
        admin_url = self.settings.nats_admin_url
        if admin_url is None:
            return
        said = ""
        while True:
            try:
                await set_up_log(
                    admin_url.get_secret_value(),
                    self.settings.log,
                    self.settings.nats_admin_credentials,
                )
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
            on_reconnected=_nothing,
            credentials=self.settings.nats_credentials,
        )
        await self._log_nats.open(
            url,
            name="mesh-gateway-log",
            on_disconnected=self._on_log_disconnected,
            on_reconnected=_nothing,
            credentials=self.settings.nats_credentials,
        )
        await self._live_inbox.open()
        await self._log_inbox.open()
        await self.services.live.open()
        log.info("connected to NATS")

    async def _on_live_disconnected(self) -> None:
        self._live_inbox.fail_all()
        self.services.live.hold("connection")

    async def _on_log_disconnected(self) -> None:
        self._log_inbox.fail_all()

    async def _repair_holes(self) -> None:
        live, said = self.services.live, ""
        while True:
            await live.held.wait()
            await self._live_nats.check()  # what comes no more may be all that comes over it
            try:
                await live.repair()
                said = ""
            except MeshError as error:
                if error.message != said:
                    log.warning("the live feed isn't repaired yet", error=error.message)
                said = error.message
                await self._clock.sleep(RETRY)

    async def _look_after_clients(self) -> None:
        interval = min(self.settings.heartbeat, self.settings.stalled_after, 16.0) / 8
        silent_after = self.settings.heartbeat - interval
        while True:
            clients = tuple(self._clients)
            # A few at a time: to look after thousands takes as long as a flush.
            slices = max(1, len(clients) // CLIENTS_AT_ONCE)
            for number in range(slices):
                await self._clock.sleep(interval / slices)
                now = self._clock.monotonic()
                for client in clients[number::slices]:
                    client.look_after(now, silent_after)

    def _show_gauges(self) -> None:
        gauge, clients = self.metrics.gauge, self._clients
        gauge("mesh_connections", "Clients that are connected.", lambda: len(clients))
        gauge(
            "mesh_subscriptions",
            "Subscriptions of all clients.",
            lambda: sum(client.subscriptions for client in clients),
        )
        gauge(
            "mesh_lagging",
            "Clients that are being caught up from the log.",
            lambda: sum(client.is_lagging for client in clients),
        )
        gauge(
            "mesh_position",
            "Sequence up to which the live feed is complete.",
            lambda: self.services.live.position,
        )


async def _look_after(nats: NatsConnection, inbox: Inbox) -> None:
    """Find out whether a connection lives whenever a question over it wasn't answered."""
    while True:
        await inbox.unanswered.wait()
        await nats.check()
        inbox.unanswered.clear()


async def _nothing() -> None:
    pass
