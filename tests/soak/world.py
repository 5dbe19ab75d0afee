"""What a round of faults is played in: NATS, two gateways, a load, a dozen clients, the truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS, conf_path
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.publishers import EventPublisher
from jarvis_mesh.schema import SystemClock
from tests.soak.load import SOURCES, Load
from tests.soak.population import make_followers
from tests.support.cluster import Cluster, cluster, end
from tests.support.followers import Follower, Journal
from tests.support.gateway_process import GatewayProcess
from tests.support.ports import free_port
from tests.support.truth import Truth, truth
from tests.support.waiting import wait_until

_CLOCK = SystemClock()
GATEWAYS = 2
GATEWAY_SETTINGS = {"HEARTBEAT": "1s", "DRAIN": "2s"}
SETTLE_WITHIN = 60.0
"""Seconds after the last fault until every client must be live at the log's end."""


@dataclass
class World:
    """Everything that a fault can hurt."""

    nats: NatsServer | Cluster
    gateways: list[GatewayProcess]
    followers: list[Follower]
    load: Load
    truth: Truth
    journal: Journal
    short: bool
    """Whether faults last as short as they can, for the suite."""

    async def warm_up(self) -> None:
        """Return once every client is live."""
        await wait_until(
            lambda: all(follower.is_live for follower in self.followers),
            "every client live at the start",
            within=30,
        )

    async def ready(self) -> None:
        """Return once every gateway is ready."""
        for gateway in self.gateways:
            await gateway.ready()

    async def settle(self) -> list[Follower]:
        """Return the clients that haven't got everything long after the last fault."""
        await self.load.pause()
        log = await self.truth.caught_up()

        def missing() -> list[Follower]:
            return [
                follower
                for follower in self.followers
                if not follower.has_all(log.last_event_seq, log.epoch)
            ]

        deadline = _CLOCK.monotonic() + SETTLE_WITHIN
        while missing() and _CLOCK.monotonic() < deadline:
            await _CLOCK.sleep(0.05)
        return missing()


@asynccontextmanager
async def world(
    folder: Path, chance: random.Random, *, clustered: bool, rate: float, short: bool = False
) -> AsyncIterator[World]:
    """Run a world in *folder*; everything in it is killed afterwards.

    Args:
        clustered: Whether NATS is three nodes or a lone one.
        rate: Events published a second.
    """
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(cluster(folder) if clustered else _lone(folder))
        gateways = [
            GatewayProcess(_settings(nats), folder / f"gateway-{number}.log")
            for number in range(GATEWAYS)
        ]
        for gateway in gateways:
            stack.push_async_callback(gateway.kill)
        async with asyncio.TaskGroup() as starting:
            for gateway in gateways:
                starting.create_task(gateway.start())
        publishers = [
            await stack.enter_async_context(EventPublisher(source, nats.url(source)))
            for source in SOURCES
        ]
        recorder = await stack.enter_async_context(truth(nats.url("admin")))
        journal = Journal()
        made = World(
            nats,
            gateways,
            make_followers([gateway.url for gateway in gateways], journal, chance),
            Load(publishers, rate, chance),
            recorder,
            journal,
            short,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(recorder.run())
            running = [
                tasks.create_task(work)
                for work in (made.load.run(), *(follower.run() for follower in made.followers))
            ]
            try:
                yield made
            finally:
                recorder.stop()
                for task in running:
                    task.cancel()


def _settings(nats: NatsServer | Cluster) -> dict[str, str]:
    settings = {**GATEWAY_SETTINGS, "NATS_URL": nats.url("gateway")}
    # In the cluster the log is there already, and its admin is somebody else.
    return (
        settings if isinstance(nats, Cluster) else settings | {"NATS_ADMIN_URL": nats.url("admin")}
    )


@asynccontextmanager
async def _lone(folder: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(
        find_binary(),
        conf_path(),
        folder / "nats",
        {user: new_password() for user in USERS},
        port=free_port(),
        log=folder / "nats.log",
    )
    try:
        await server.start()
        await set_up_log(server.url("admin"), LogSettings())
        yield server
    finally:
        await end(server)
