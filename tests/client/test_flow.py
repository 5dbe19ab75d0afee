from __future__ import annotations

import asyncio
import random
from typing import Any

from jarvis_mesh.client.subscription import HIGH_WATER_EVENTS
from tests.client.collecting import numbered, take
from tests.client.conftest import Visit
from tests.support.scripted_gateway import ScriptedGateway, make_event
from tests.support.waiting import wait_until


class TestBackpressure:
    async def test_a_full_queue_stops_the_reader_and_nothing_is_lost(
        self, visit: Visit, gateway: ScriptedGateway
    ) -> None:
        gateway.heartbeat = 0.1
        total = 8 * HIGH_WATER_EVENTS  # some 16 MB: more than the kernel keeps for a socket
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._flood(visitor, total))
                assert await take(subscription, 1) == [1]
                await wait_until(lambda: len(subscription._queue) >= HIGH_WATER_EVENTS)
                # Three heartbeats: the silence is our own doing, and no reason to reconnect.
                assert not (await asyncio.wait({sending}, timeout=0.3))[0]
                assert len(subscription._queue) < 1.2 * HIGH_WATER_EVENTS
                assert await take(subscription, total - 1) == list(range(2, total + 1))
            assert gateway.visitors == 1

    async def test_publishing_while_events_are_not_taken_gets_its_answer(
        self, visit: Visit, gateway: ScriptedGateway
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            for first in range(1, HIGH_WATER_EVENTS * 2, 64):
                await visitor.events(*((n, numbered(n)) for n in range(first, first + 64)))
            await wait_until(lambda: len(subscription._queue) >= HIGH_WATER_EVENTS)
            async with asyncio.TaskGroup() as tasks:
                published = tasks.create_task(mesh.publish("agent:created", {"agentId": "a"}))
                other = await gateway.visitor()
                request = await other.expect("publish")
                await other.say("published", id=request["id"], seq=77)
            assert published.result().seq == 77

    async def _flood(self, visitor: Any, total: int) -> None:
        text = random.Random(1).randbytes(2000).hex()  # which doesn't compress to nothing
        for first in range(1, total + 1, 64):
            await visitor.events(
                *((n, make_event(n=n, text=text)) for n in range(first, first + 64))
            )
