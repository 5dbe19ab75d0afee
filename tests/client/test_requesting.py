"""A request goes out once, and who asked hears what became of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jarvis_mesh.client import Mesh
from jarvis_mesh.client.requesting import LONGEST, MAX_WAITING
from jarvis_mesh.schema.errors import (
    BadRequestError,
    DeadlineError,
    ForbiddenError,
    MeshError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
)
from tests.client.conftest import Visit
from tests.support.scripted_gateway import ScriptedGateway
from tests.support.waiting import wait_until

ANSWERS = [None, False, 7, "ü", [1, {"a": None}], {"written": 3}]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_it_goes_out_as_the_protocol_says_and_the_answer_comes_back(
    visit: Visit, gateway: ScriptedGateway, answer: Any
) -> None:
    data = {"terminalId": "t1", "input": "ls\n"}
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(mesh.request("terminal", "write", data))
        visitor = await gateway.visitor()
        request = await visitor.expect("request")
        number, left = request.pop("id"), request.pop("timeout_ms", 5000)
        assert request == {"op": "request", "service": "terminal", "method": "write", "data": data}
        assert 1 <= left <= 5000
        await visitor.say("response", id=number, data=answer)
        assert await asking == answer


async def test_answers_may_come_in_any_order(visit: Visit, gateway: ScriptedGateway) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(mesh.request("a", "b", n)) for n in range(5)]
        visitor = await gateway.visitor()
        requests = [await visitor.expect("request") for _ in asking]
        for request in reversed(requests):
            await visitor.say("response", id=request["id"], data=request.get("data"))
        assert [await each for each in asking] == list(range(5))


async def test_it_is_answered_while_events_wait_to_be_taken(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        mesh._flow.pause("a full queue")
        asking = tasks.create_task(mesh.request("a", "b"))
        visitor = await gateway.visitor()
        request = await visitor.expect("request")
        await visitor.say("response", id=request["id"], data=1)
        assert await asking == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("forbidden", ForbiddenError),
        ("unavailable", UnavailableError),
        ("timeout", DeadlineError),
        ("bad_request", BadRequestError),
        ("no_such_terminal", MeshError),
    ],
)
async def test_a_refusal_is_raised(
    visit: Visit, gateway: ScriptedGateway, code: str, kind: type[MeshError]
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(mesh.request("a", "b")))
        visitor = await gateway.visitor()
        request = await visitor.expect("request")
        about = {"code": code, "message": "because", "retryable": False}
        await visitor.say("error", id=request["id"], **about)
        error = await asking
    assert type(error) is kind
    assert error.message == ("because" if kind is not MeshError else f"{code}: because")


async def test_it_is_not_sent_again_when_the_connection_breaks(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(mesh.request("a", "b")))
        visitor = await gateway.visitor()
        await visitor.expect("request")
        visitor.cut()
        error = await asking
        assert isinstance(error, OutcomeUnknownError)
        assert "may have been carried out" in error.message
        visitor = await gateway.visitor()
        tasks.create_task(_outcome(mesh.request("a", "again")))
        assert (await visitor.expect("request"))["method"] == "again"
        mesh.disconnect()


async def test_no_answer_in_time_leaves_open_whether_it_was_done(visit: Visit) -> None:
    async with visit() as (mesh, _):
        with pytest.raises(DeadlineError, match=r"a\.b.*0\.1 s.*may have been carried out"):
            await mesh.request("a", "b", timeout=0.1)


async def test_without_a_gateway_it_says_that_nothing_was_sent(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _):
        await gateway.stop()
        with pytest.raises(UnavailableError, match="no gateway at"):
            await mesh.request("a", "b", timeout=0.2)


async def test_it_waits_for_a_connection_and_a_gateway_is_not_asked_to_wait_too_long(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        await gateway.stop()
        asking = tasks.create_task(mesh.request("a", "b", timeout=1e6))
        await wait_until(lambda: "no gateway" in mesh._calls.trouble)
        await gateway.start()
        visitors = [await gateway.visitor(), await gateway.visitor()]
        expecting = [tasks.create_task(each.expect("request")) for each in visitors]
        done, others = await asyncio.wait(expecting, return_when=asyncio.FIRST_COMPLETED)
        request = done.pop().result()
        assert 1 <= request["timeout_ms"] <= 1000 * LONGEST
        for visitor, each in zip(visitors, expecting, strict=True):
            if each in others:
                each.cancel()
            else:
                await visitor.say("response", id=request["id"], data="done")
        assert await asking == "done"


@pytest.mark.parametrize("data", [b"", {1: 2}, float("nan"), 2**53])
async def test_what_json_cannot_say_is_not_sent(visit: Visit, data: Any) -> None:
    async with visit() as (mesh, _):
        with pytest.raises(BadRequestError, match="data"):
            await mesh.request("a", "b", data)


async def test_what_the_gateway_would_not_read_is_refused(
    visit: Visit, gateway: ScriptedGateway
) -> None:
    gateway.message_bytes = 300
    async with visit() as (mesh, _):
        with pytest.raises(TooLargeError, match=r"a\.b takes .* over the gateway's 300"):
            await mesh.request("a", "b", "ü" * 300)


async def test_disconnecting_tells_who_waits(visit: Visit, gateway: ScriptedGateway) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(mesh.request("a", "b")))
        await (await gateway.visitor()).expect("request")
        mesh.disconnect()
        assert isinstance(await asking, OutcomeUnknownError)


async def test_many_requests_leave_room_for_events(visit: Visit, gateway: ScriptedGateway) -> None:
    async with visit() as (mesh, _), asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(_outcome(mesh.request("a", "b"))) for _ in range(MAX_WAITING + 5)
        ]
        visitor = await gateway.visitor()
        for _ in range(MAX_WAITING):
            await visitor.expect("request")
        publishing = tasks.create_task(mesh.publish("agent:created", {"agentId": "a"}))
        request = await visitor.expect("publish")
        await visitor.say("published", id=request["id"], seq=1)
        assert (await publishing).seq == 1
        mesh.disconnect()
        assert all([isinstance(await each, MeshError) for each in asking])


async def test_a_mesh_that_was_not_entered_cannot_ask() -> None:
    with pytest.raises(UnavailableError, match="async with"):
        await Mesh.connect().request("a", "b")


async def _outcome(asking: Any) -> Any:
    try:
        return await asking
    except MeshError as error:
        return error
