"""A scripted gateway, and a client of it in each of the two forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from jarvis_mesh.client import Mesh
from jarvis_mesh.client.formats import FormatName
from jarvis_mesh.schema.clock import SystemClock
from tests.support.scripted_gateway import ScriptedGateway, Visitor, scripted_gateway

Visit = Callable[[], AbstractAsyncContextManager[tuple[Mesh, Visitor]]]


class HastyClock(SystemClock):
    """Notes every pause, and takes none."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.001)  # noqa: TID251 - lets the others run, and doesn't spin


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway() as running:
        yield running


@pytest.fixture
def clock() -> HastyClock:
    return HastyClock()


@pytest.fixture(params=["cbor", "json"])
def form(request: pytest.FixtureRequest) -> FormatName:
    name: FormatName = request.param
    return name


@pytest.fixture
def visit(gateway: ScriptedGateway, form: FormatName, clock: HastyClock) -> Visit:
    """Connect a `Mesh`; both ends of the connection are given."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[tuple[Mesh, Visitor]]:
        async with Mesh.connect(gateway.url, format=form, clock=clock) as mesh:
            yield mesh, await gateway.visitor()

    return connect
