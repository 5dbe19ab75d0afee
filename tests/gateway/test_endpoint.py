"""Who takes nothing at all is ended; who takes what he is sent isn't, however it looks."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import cast

import pytest

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.endpoint import Endpoint
from jarvis_mesh.gateway.limits import ClientLimits
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed
from jarvis_mesh.schema.cursor import Cursor
from tests.support.clock import ManualClock

STALLED_AFTER = 5.0
EVENT_BYTES = 120


class Client:
    """What an endpoint sees of one, looked after once a second."""

    def __init__(self) -> None:
        self.has_written = False
        self.unacknowledged = 0
        self.ended_by: str | None = None
        self.has_ended = False
        self.clock = ManualClock()
        services = SimpleNamespace(
            clock=self.clock,
            metrics=Metrics(),
            settings=Settings(stalled_after=STALLED_AFTER),
            live=SimpleNamespace(epoch="1", position=0),
            retry_ms=lambda: 0,
        )
        sender = SimpleNamespace(outbox=self, has_ended=False, say=lambda _: None, end=self._end)
        shared = SimpleNamespace(is_live=True, settle=lambda: None, cursor=Cursor("1", 0))
        self.endpoint = Endpoint(
            cast(Sender, sender),
            cast(SharedFeed, shared),
            cast(Services, services),
            ANYBODY,
            ClientLimits(Settings(), self.clock).visit(None, None),
        )

    def unacknowledged_bytes(self) -> int:
        return self.unacknowledged

    def _end(self, reason: str, _code: int, *, discard: bool) -> None:
        self.ended_by = reason

    async def look(self) -> None:
        await self.clock.advance(1)
        self.endpoint.look_after(self.clock.monotonic(), silent_after=15)


async def test_who_always_has_the_last_event_under_way_is_not_stalled() -> None:
    """Events that come as often as the looks are each time just sent."""
    client = Client()
    for _ in range(20):
        client.has_written, client.unacknowledged = True, EVENT_BYTES
        await client.look()
    assert client.ended_by is None


@pytest.mark.parametrize("writes", [True, False], ids=["written to", "full"])
async def test_who_takes_nothing_is_ended(writes: bool) -> None:
    client = Client()
    for _ in range(10):
        client.has_written = writes
        client.unacknowledged += EVENT_BYTES * writes or (client.unacknowledged == 0)
        await client.look()
    assert client.ended_by == "stalled"


async def test_who_takes_some_of_it_now_and_then_is_not_ended() -> None:
    client, chance = Client(), random.Random(1)
    for _ in range(50):
        client.has_written = True
        client.unacknowledged = chance.choice((EVENT_BYTES, 2 * EVENT_BYTES))
        await client.look()
    assert client.ended_by is None
