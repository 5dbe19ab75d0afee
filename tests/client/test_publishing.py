from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jarvis_mesh.client import Mesh, Published
from jarvis_mesh.client.publishing import MAX_WAITING
from jarvis_mesh.schema.errors import (
    EventError,
    ForbiddenError,
    MeshError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
)
from jarvis_mesh.schema.event import new_id
from tests.client.conftest import Visit
from tests.support.scripted_gateway import ScriptedGateway
from tests.support.waiting import wait_until

PAYLOAD = {"agentId": "a", "text": "ü"}


async def test_an_event_goes_out_as_the_protocol_says_and_its_sequence_comes_back(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(
            mesh.publish("agent:created", PAYLOAD, entity="a", session="s", priority="high")
        )
        visitor = await gateway.visitor()
        request = await visitor.expect("publish")
        event_id = request["event"].pop("id")
        assert request["event"] == {
            "type": "agent:created",
            "payload": PAYLOAD,
            "metadata": {"session": "s", "entity": "a", "priority": "high"},
        }
        await visitor.say("published", id=request["id"], seq=12)
        assert await publishing == Published(event_id, 12)


async def test_without_an_answer_it_is_sent_again_with_the_same_id(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    given = new_id(1)
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(mesh.publish("agent:created", PAYLOAD, id=given))
        for _attempt in range(3):
            visitor = await gateway.visitor()
            request = await visitor.expect("publish")
            assert request["event"]["id"] == given
            visitor.cut()
        visitor = await gateway.visitor()
        request = await visitor.expect("publish")
        await visitor.say("published", id=request["id"], seq=5)
        assert await publishing == Published(given, 5)


async def test_a_refusal_is_raised_and_the_next_event_passes(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(_outcome(mesh.publish("agent:created", PAYLOAD)))
        visitor = await gateway.visitor()
        request = await visitor.expect("publish")
        await visitor.say(
            "error", id=request["id"], code="forbidden", message="no", retryable=False
        )
        assert isinstance(await first, ForbiddenError)
        second = tasks.create_task(mesh.publish("agent:created", PAYLOAD))
        request = await visitor.expect("publish")
        await visitor.say("published", id=request["id"], seq=1)
        assert (await second).seq == 1


async def test_no_answer_in_time_leaves_the_outcome_open(visit: Visit) -> None:
    async with visit() as (mesh, _):
        given = new_id(1)
        with pytest.raises(OutcomeUnknownError, match=given):
            await mesh.publish("agent:created", PAYLOAD, id=given, timeout=0.1)


async def test_without_a_gateway_it_says_that_nothing_was_sent(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _):
        await gateway.stop()
        with pytest.raises(UnavailableError, match="no gateway at"):
            await mesh.publish("agent:created", PAYLOAD, timeout=0.2)


async def test_disconnecting_tells_who_waits(visit: Visit, gateway: ScriptedGateway) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        outcome = tasks.create_task(_outcome(mesh.publish("agent:created", PAYLOAD)))
        await (await gateway.visitor()).expect("publish")
        mesh.disconnect()
        assert isinstance(await outcome, OutcomeUnknownError)


@pytest.mark.parametrize(
    ("event_type", "payload", "about"),
    [
        ("agent", {}, {}),
        ("Agent:created", {}, {}),
        ("agent:created", {"n": 2**53}, {}),
        ("agent:created", {"b": b""}, {}),
        ("agent:created", {}, {"entity": ""}),
        ("agent:created", {}, {"session": "x" * 129}),
        ("agent:created", {}, {"id": "7"}),
    ],
)
async def test_what_is_no_event_is_refused_before_it_is_sent(
    visit: Visit, event_type: str, payload: Any, about: dict[str, Any]
) -> None:
    async with visit() as (mesh, _):
        with pytest.raises(EventError):
            await mesh.publish(event_type, payload, **about)


async def test_what_the_gateway_would_not_read_is_refused(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    gateway.message_bytes = 300
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        tasks.create_task(_outcome(mesh.publish("agent:created", PAYLOAD)))
        await (await gateway.visitor()).expect("publish")
        with pytest.raises(TooLargeError, match="over the gateway's 300"):
            await mesh.publish("agent:created", {"text": "ü" * 300})
        mesh.disconnect()


async def test_no_more_than_so_many_wait_for_their_answers(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        for _number in range(MAX_WAITING + 10):
            tasks.create_task(mesh.publish("agent:created", PAYLOAD))
        visitor = await gateway.visitor()
        requests = [await visitor.expect("publish") for _number in range(MAX_WAITING)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await visitor.socket.recv()
        for request in requests:
            await visitor.say("published", id=request["id"], seq=1)
        for _number in range(10):
            request = await visitor.expect("publish")
            await visitor.say("published", id=request["id"], seq=1)


async def test_a_mesh_that_was_not_entered_cannot_publish() -> None:
    with pytest.raises(UnavailableError, match="async with"):
        await Mesh.connect().publish("agent:created", PAYLOAD)


async def test_a_mesh_that_only_watches_has_one_connection(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, visitor):
        mesh.subscribe("all")
        await visitor.accept(0)
        await wait_until(lambda: mesh.is_connected)
        assert gateway.visitors == 1


async def _outcome(publishing: Any) -> Any:
    try:
        return await publishing
    except MeshError as error:
        return error
