"""Fixtures that every folder of tests uses."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS, conf_path
from jarvis_mesh.gateway.log_setup import set_up_log
from tests.support.cluster import Cluster, cluster

# How fast an example runs says what else the machine does, not whether the claim holds.
settings.register_profile(
    "jarvis-mesh", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("jarvis-mesh")

StartNats = Callable[..., Awaitable[NatsServer]]


@pytest.fixture
async def start_nats(tmp_path: Path) -> AsyncIterator[StartNats]:
    """Start a real nats-server with the project's nats.conf, on a free port, own store.

    Called with a `LogSettings` it makes the stream too; with `None` it doesn't.
    """
    servers: list[NatsServer] = []

    async def start(log: LogSettings | None = LogSettings()) -> NatsServer:  # noqa: B008
        server = NatsServer(
            find_binary(),
            conf_path(),
            tmp_path / f"nats-{len(servers)}",
            {user: new_password() for user in USERS},
        )
        servers.append(server)
        await server.start()
        if log is not None:
            await set_up_log(server.url("admin"), log)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def nats_server(start_nats: StartNats) -> NatsServer:
    """A running nats-server with the stream EVENTS."""
    return await start_nats()


@pytest.fixture
async def nats_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three running nats-servers with the stream EVENTS in three replicas."""
    async with cluster(tmp_path) as running:
        yield running
    with warnings.catch_warnings():
        # nats-py leaves the sockets of connections that broke while they were made: let go of
        # them here, where it is expected, not in whatever test runs later.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
