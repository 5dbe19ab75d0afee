"""Ways to get at what one may not see, tried: races, tricks with headers, with names, with time."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.gateway import RunningGateway, gateway
from tests.support.http_client import NDJSON, SSE, ask, get_json
from tests.support.mesh_command import announce, environment, mesh
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.responder import serving
from tests.support.tokens import SECRET, bearer, token_for
from tests.support.waiting import wait_until

NOISE = os.urandom(5_000).hex()


@pytest.fixture
async def secured(nats_server: NatsServer) -> AsyncIterator[RunningGateway]:
    async with gateway(nats_server, jwt_secret=SECRET, query_tokens=True) as running:
        await running.ready()
        yield running


def lines(*messages: dict[str, Any]) -> str:
    return "\n".join(json.dumps(each) for each in messages)


def subscribe(sub: str, *channels: str, **fields: Any) -> dict[str, Any]:
    return {"op": "subscribe", "id": sub, "sub": sub, "channels": list(channels), **fields}


async def test_what_comes_before_the_token_in_one_message_doesnt_count(
    secured: RunningGateway,
) -> None:
    async with connect(secured.url) as client:
        auth = {"op": "auth", "id": 1, "token": token_for("alice")}
        await client.socket.send(lines(subscribe("a", "all"), auth, subscribe("b", "all")))
        assert (await client.expect("error"))["sub"] == "a"
        await client.expect("authenticated")
        assert (await client.expect("subscribed"))["filters"] == ["*.*.*.*.*.alice.*"]


async def test_a_wide_token_before_a_narrow_one_leaves_nothing_open(
    secured: RunningGateway, events: TestPublisher
) -> None:
    wide, narrow = token_for("alice", subscribe=["all"]), token_for("alice")
    async with connect(secured.url, additional_headers=bearer(wide)) as client:
        await client.socket.send(
            lines(
                subscribe("live", "all"),
                subscribe("old", "all", since="start"),
                subscribe("few", "all", conflate_ms=1),
                {"op": "auth", "token": narrow},
                subscribe("own", "all"),
            )
        )
        await client.expect_answer("own")
        await events.publish(make_event(user="bob"))
        seq = await events.publish(make_event(user="alice"))
        assert (await client.expect("event", seq=seq)).get("sub") is None
        await client.still_lives()
        ended = {each["sub"] for each in client.received if each.get("code") == "forbidden"}
        assert ended == {"live", "old", "few"}
        assert [each["seq"] for each in client.received if each["op"] == "event"] == [seq]


async def test_a_reader_that_lags_gets_nothing_more_of_what_was_taken_away(
    secured: RunningGateway, events: TestPublisher
) -> None:
    wide = bearer(token_for("alice", subscribe=["all"]))
    async with connect(secured.url, max_queue=1, additional_headers=wide) as client:
        await client.subscribe("all", sub="all")
        await client.subscribe("user:alice", sub="own")
        payload = {"agentId": "a", "noise": NOISE}
        for _ in range(300):
            await events.publish(make_event(user="bob", payload=payload))
        await client.send("auth", id="narrow", token=token_for("alice"))
        await client.expect_answer("narrow")
        await client.expect("error", code="forbidden", sub="all")
        assert "lagging" in {each["op"] for each in client.received}
        seen = len(client.seqs())
        own = await events.publish(make_event(user="alice"))
        await client.expect("event", seq=own)
        await client.still_lives()
        assert client.seqs()[seen:] == [own]


async def test_after_its_end_a_token_publishes_nothing_and_calls_nobody(
    secured: RunningGateway, nats_server: NatsServer
) -> None:
    called: list[str] = []

    def answer(subject: str, _said: dict[str, Any]) -> Any:
        called.append(subject)
        return {"result": None}

    token = token_for("alice", publish=["all"], request=["*.*"], expires_in=1)
    publish = {"op": "publish", "event": {"type": "agent:created", "payload": {"agentId": "a"}}}
    request = {"op": "request", "service": "terminal", "method": "x"}
    async with (
        serving(nats_server, "terminal-service", "svc.terminal.*", answer),
        connect(secured.url, additional_headers=bearer(token)) as client,
    ):
        expires = (await client.next())["expires"]
        while (await client.ask("ping"))["op"] == "pong" and time.time() < expires - 0.05:
            pass

        async def go_on() -> None:
            while True:
                await client.socket.send(lines(publish, request))
                await client.next()

        with pytest.raises(websockets.ConnectionClosed) as closed:
            await go_on()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        done = len(called)
    headers = bearer(token_for("ops", subscribe=["all"]))
    _, page = await get_json(secured.url, channels=("all",), since="start", headers=headers)
    late = [each for each in page["events"] if each["event"]["timestamp"] > (expires + 1) * 1000]
    assert late == []
    assert len(called) == done


@pytest.mark.parametrize(
    "authorization",
    [
        ["Bearer {alice}", "Bearer {bob}"],
        ["Bearer {alice}", "Bearer nonsense"],
        ["Bearer {alice},Bearer {bob}"],
        ["Bearer {alice} {bob}"],
        ["Bearer\t{alice}"],
        ["Basic {alice}"],
        ["{alice}"],
        [""],
    ],
)
async def test_a_header_that_could_be_read_in_two_ways_is_refused(
    authorization: list[str], secured: RunningGateway
) -> None:
    tokens = {"alice": token_for("alice"), "bob": token_for("bob")}
    headers = [("Authorization", text.format(**tokens)) for text in authorization]
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect(secured.url, additional_headers=headers):
            pass
    assert refusal.value.response.status_code == 401


async def test_a_token_comes_in_one_way(secured: RunningGateway) -> None:
    alice, bob = token_for("alice"), token_for("bob")
    for params, headers in (
        ({"access_token": alice}, bearer(bob)),
        ({"access_token": alice}, {"Authorization": "nonsense"}),
    ):
        async with ask(secured.url, SSE, channels=("all",), headers=headers, **params) as answer:
            assert answer.status == 400
    async with ask(secured.url, f"{SSE}&", channels=("all",)) as answer:
        assert answer.status == 401
    doubled = f"/v1/events?channel=all&access_token={alice}&access_token={bob}"
    assert (await secured.get(doubled, Accept=SSE))[0] == 400


async def test_another_ones_cursor_opens_nothing(
    secured: RunningGateway, events: TestPublisher
) -> None:
    """A cursor is a place, not a right."""
    await events.publish_many(3, user="bob")
    async with connect(secured.url, additional_headers=bearer(token_for("bob"))) as bob:
        cursor = (await bob.subscribe("all", since="start"))["cursor"]
        await bob.events(3)
    headers = bearer(token_for("alice"))
    async with connect(secured.url, additional_headers=headers) as client:
        await client.subscribe("all", since=cursor)
        await client.expect("live")
        assert client.seqs("a") == []
    last = {"Last-Event-ID": cursor}
    async with ask(secured.url, NDJSON, channels=("all",), headers=headers | last) as stream:
        assert "bob" not in await stream.until("live")


@pytest.mark.parametrize("user", ["_", "*", ">", "%5F", "%2A", "a.b", "\u0000", "bob\n", "Bob"])
async def test_no_name_is_another_ones(
    user: str, secured: RunningGateway, events: TestPublisher
) -> None:
    for owner in (None, "bob", "a"):
        metadata = {} if owner is None else {"user": owner}
        await events.publish(make_event(**metadata))
    seq = await events.publish(make_event(user=user))
    async with connect(secured.url, additional_headers=bearer(token_for(user))) as client:
        await client.subscribe(
            "all", "user:bob", "shared", f"user:{user.replace('%', '%25')}", since="start"
        )
        await client.expect("live")
        assert client.seqs("a") == [seq]


async def test_a_subscription_under_way_when_its_token_is_replaced_is_measured_by_the_new_one(
    secured: RunningGateway, events: TestPublisher
) -> None:
    """Many at once: whatever the order, in the end only what the last token grants is open."""
    wide, narrow = token_for("alice", subscribe=["all"]), token_for("alice")

    async def one(client: PlainClient) -> None:
        requests = [subscribe(f"s{number}", "all", since="start") for number in range(20)]
        await client.socket.send(lines(*requests, {"op": "auth", "id": "x", "token": narrow}))
        await client.expect_answer("x")
        await client.still_lives()
        before = len(client.received)
        await events.publish(make_event(user="bob"))
        await client.still_lives()
        assert not [each for each in client.received[before:] if each["op"] == "event"]

    async with (
        connect(secured.url, additional_headers=bearer(wide)) as first,
        connect(secured.url, additional_headers=bearer(wide)) as second,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(one(first))
        tasks.create_task(one(second))


async def test_a_body_that_takes_its_time_is_measured_when_it_is_whole(
    secured: RunningGateway,
) -> None:
    token = token_for("alice", publish=["all"], expires_in=0.5)
    body = json.dumps({"type": "agent:created", "payload": {"agentId": "a"}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.settings.port)
    writer.write(
        f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body[:10]
    )
    began = time.time()
    await wait_until(lambda: time.time() > began + 0.7, "the token's end")
    writer.write(body[10:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.transport.abort()


async def test_a_stream_that_opens_while_its_token_is_revoked_ends(
    secured: RunningGateway, nats_server: NatsServer, tmp_path: Path
) -> None:
    """A cursor ahead of the log waits two seconds for it."""
    announce(nats_server, tmp_path)
    token = token_for("alice", jti="t1")
    async with connect(secured.url, additional_headers=bearer(token)) as client:
        epoch = (await client.next())["cursor"].partition(":")[0]

    async def read() -> str:
        options: dict[str, Any] = {"channels": ("all",), "headers": bearer(token)}
        async with ask(secured.url, NDJSON, since=f"{epoch}:1000", **options) as stream:
            return await stream.text()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        assert (await mesh("revoke", "--id", "t1", env=environment(tmp_path))).code == 0
    assert "unauthorized" in reading.result()
