"""The whole stack: a real nats-server, a real gateway, real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.gateway import RunningGateway, gateway
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher, publisher


@pytest.fixture
async def mesh(nats_server: NatsServer) -> AsyncIterator[RunningGateway]:
    """A gateway that is ready."""
    async with gateway(nats_server) as running:
        await running.ready()
        yield running


@pytest.fixture
async def events(nats_server: NatsServer) -> AsyncIterator[TestPublisher]:
    """Somebody who publishes."""
    async with publisher(nats_server) as publishing:
        yield publishing


@pytest.fixture(params=[None, "mesh.v1.json", "mesh.v1.cbor"])
async def client(
    mesh: RunningGateway, request: pytest.FixtureRequest
) -> AsyncIterator[PlainClient]:
    """A client of each form, welcomed."""
    async with connect(mesh.url, request.param) as connected:
        await connected.expect("welcome")
        yield connected
