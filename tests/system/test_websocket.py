"""The WebSocket protocol, message by message, as a client written from its page sees it."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from websockets.frames import Frame, Opcode

from jarvis_mesh.gateway import feed
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.schema import new_id
from tests.support.gateway import RunningGateway
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.waiting import wait_until

JSON = "mesh.v1.json"
CBOR = "mesh.v1.cbor"


async def test_welcome_comes_first_and_says_what_is_allowed(mesh: RunningGateway) -> None:
    async with connect(mesh.url) as client:
        welcome = await client.next()
    assert welcome["op"] == "welcome"
    assert welcome["protocol"] == 1
    assert welcome["auth"] == "none"
    assert welcome["heartbeat_s"] == 15
    assert welcome["limits"] == {
        "message_bytes": 1024 * 1024,
        "subscriptions": 100,
        "channels": 100,
    }
    epoch, seq = welcome["cursor"].split(":")
    assert len(epoch) == 19
    assert seq.isdigit()


async def test_the_subprotocol_asked_for_is_the_one_spoken(mesh: RunningGateway) -> None:
    for subprotocol, kind in ((None, str), (JSON, str), (CBOR, bytes)):
        async with connect(mesh.url, subprotocol) as client:
            assert client.socket.subprotocol == subprotocol
            assert isinstance(await client.socket.recv(), kind)


async def test_an_unknown_subprotocol_is_refused(mesh: RunningGateway) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect(mesh.url, "mesh.v9"):
            pass
    assert refusal.value.response.status_code == 400


async def test_live_events_come_untagged_and_once(
    client: PlainClient, events: TestPublisher
) -> None:
    subscribed = await client.subscribe("event:agent:**")
    assert subscribed["filters"] == ["agent.*.*.*.*.*.*"]
    await client.subscribe("entity:e1", sub="b")
    event = make_event(entity="e1", payload={"agentId": "é", "n": 1.5})
    seq = await events.publish(event)
    message = await client.expect("event")
    assert message == {"op": "event", "seq": seq, "event": event.to_map()}
    await client.still_lives()
    assert [m["seq"] for m in client.received if m["op"] == "event"] == [seq]


async def test_only_what_was_asked_for_comes(client: PlainClient, events: TestPublisher) -> None:
    await client.subscribe("event:agent:created&user:alice")
    await events.publish(make_event(user="bob"))
    await events.publish(make_event("agent:updated", user="alice"))
    seq = await events.publish(make_event(user="alice"))
    assert (await client.expect("event"))["seq"] == seq
    assert len([m for m in client.received if m["op"] == "event"]) == 1


async def test_a_replay_is_tagged_and_ends_with_live(
    client: PlainClient, events: TestPublisher
) -> None:
    seqs = await events.publish_many(300, entity="e")
    subscribed = await client.subscribe("entity:e", since="start")
    replayed = await client.events(300)
    assert [(m["sub"], m["seq"]) for m in replayed] == [("a", seq) for seq in seqs]
    live = await client.expect("live", sub="a")
    assert live["replayed"] == 300
    assert int(live["cursor"].split(":")[1]) >= seqs[-1]
    assert subscribed["cursor"].split(":")[0] == live["cursor"].split(":")[0]
    seq = await events.publish(entity="e")
    message = await client.expect("event")
    assert (message["seq"], message.get("sub")) == (seq, None)


async def test_a_cursor_continues_after_it(client: PlainClient, events: TestPublisher) -> None:
    first = await client.subscribe("entity:e")
    seqs = await events.publish_many(5, entity="e")
    epoch = first["cursor"].split(":")[0]
    await client.subscribe("entity:e", sub="b", since=f"{epoch}:{seqs[1]}")
    tagged = [m async for m in tagged_until_live(client, "b")]
    assert [m["seq"] for m in tagged] == seqs[2:]


async def tagged_until_live(client: PlainClient, sub: str) -> AsyncIterator[dict[str, Any]]:
    while (message := await client.next())["op"] != "live":
        if message.get("sub") == sub and message["op"] == "event":
            yield message


async def test_last_gives_the_newest_of_each_subject_in_log_order(
    client: PlainClient, events: TestPublisher
) -> None:
    for entity in "abacab":
        await events.publish(entity=entity)
    c, a, b = await events.publish_many(1, entity="c") + [
        await events.publish(entity="a"),
        await events.publish(entity="b"),
    ]
    await client.subscribe("event:agent:created", since="last")
    assert [m["seq"] async for m in tagged_until_live(client, "a")] == [c, a, b]


async def test_since_takes_seconds_and_times(client: PlainClient, events: TestPublisher) -> None:
    seqs = await events.publish_many(3)
    for sub, since in (
        ("a", {"seconds": 3600}),
        ("b", "2020-01-01T00:00:00Z"),
        ("c", "2020-01-01T00:00:00.5+02:00"),
    ):
        await client.subscribe("all", sub=sub, since=since)
        assert [m["seq"] async for m in tagged_until_live(client, sub)] == seqs
    for sub, since in (("d", "1600-01-01T00:00:00Z"), ("e", "0001-01-01T00:00:00Z")):
        await client.subscribe("all", sub=sub, since=since)
        assert [m["seq"] async for m in tagged_until_live(client, sub)] == seqs
    for sub, since in (("f", {"seconds": 0}), ("g", "2999-01-01T00:00:00Z")):
        await client.subscribe("all", sub=sub, since=since)
        live = await client.expect("live", sub=sub)
        assert live.get("replayed", 0) == 0


async def test_the_future_means_now_under_load_too(
    client: PlainClient, events: TestPublisher
) -> None:
    enough = asyncio.Event()

    async def load() -> None:
        while not enough.is_set():
            await events.publish()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load())
        for number, since in enumerate(["2999-01-01T00:00:00Z", {"seconds": 0}] * 15):
            await client.subscribe("entity:nobody", sub=str(number), since=since)
            live = await client.expect("live", sub=str(number))
            assert live.get("replayed", 0) == 0
        enough.set()
    assert not [message for message in client.received if message["op"] == "gap"]


async def test_last_comes_in_pages(client: PlainClient, events: TestPublisher) -> None:
    seqs = [await events.publish(entity=f"e{number}") for number in range(300)]
    await client.subscribe("all", since="last")
    assert [m["seq"] async for m in tagged_until_live(client, "a")] == seqs
    await events.publish_many(1, entity="e0")
    await client.subscribe("user:nobody", sub="b", since="last")
    assert [m["seq"] async for m in tagged_until_live(client, "b")] == []


async def test_another_epoch_and_a_cursor_ahead_are_gaps(
    client: PlainClient, events: TestPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LEADER_LAG", 0.2)  # there is no other leader to wait for
    seqs = await events.publish_many(2)
    epoch = (await client.subscribe("all"))["cursor"].split(":")[0]
    for sub, since, reason in (("b", "123:40", "epoch"), ("c", f"{epoch}:1000000", "reset")):
        await client.subscribe("all", sub=sub, since=since)
        gap = await client.expect("gap", sub=sub)
        assert gap["reason"] == reason
        assert "to" not in gap
        assert gap["cursor"] == f"{epoch}:0"
        assert [m["seq"] async for m in tagged_until_live(client, sub)] == seqs


async def test_what_retention_took_is_a_gap_with_the_right_numbers(
    client: PlainClient, events: TestPublisher
) -> None:
    seqs = await events.publish_many(5)
    cursor = (await client.subscribe("all"))["cursor"]
    epoch = cursor.split(":")[0]
    await events.jetstream.purge_stream("EVENTS", seq=seqs[3])
    await client.subscribe("all", sub="b", since=f"{epoch}:{seqs[0]}")
    gap = await client.expect("gap", sub="b")
    assert (gap["reason"], gap["from"], gap["to"]) == ("expired", seqs[0] + 1, seqs[3] - 1)
    assert gap["cursor"] == f"{epoch}:{seqs[3] - 1}"
    assert [m["seq"] async for m in tagged_until_live(client, "b")] == seqs[3:]


async def test_an_unreadable_event_is_a_gap_live_and_in_replay(
    client: PlainClient, events: TestPublisher
) -> None:
    await client.subscribe("all")
    await client.subscribe("source:x", sub="b")
    ack = await events.jetstream.publish("agent.created._.x._._._", b"nonsense")
    for sub in "ab":
        gap = await client.expect("gap", sub=sub)
        assert (gap["reason"], gap["from"], gap["to"]) == ("unreadable", ack.seq, ack.seq)
    seq = await events.publish()
    assert (await client.expect("event"))["seq"] == seq
    await client.subscribe("all", sub="c", since="start")
    assert (await client.expect("gap", sub="c"))["reason"] == "unreadable"
    assert (await client.expect("event", sub="c"))["seq"] == seq


async def test_conflation_sends_the_newest_tagged(
    client: PlainClient, events: TestPublisher
) -> None:
    await client.subscribe("all", conflate_ms=300)
    seqs = await events.publish_many(20, entity="e")
    received = [await client.expect("event")]
    while received[-1]["seq"] < seqs[-1]:
        received.append(await client.expect("event"))
    assert all(message["sub"] == "a" for message in received)
    assert len(received) < len(seqs)


async def test_publish_stores_the_event_with_the_gateways_own_facts(
    client: PlainClient,
) -> None:
    await client.subscribe("all")
    event_id = new_id(0)
    event = {
        "id": event_id,
        "type": "agent:status",
        "payload": {"agentId": "a7", "status": "idle"},
        "metadata": {"session": "s", "user": "mallory"},
    }
    answers = [await client.ask("publish", id=f"p{n}", event=event) for n in range(2)]
    assert [answer["op"] for answer in answers] == ["published", "published"]
    assert answers[0]["seq"] == answers[1]["seq"], "the same id is stored once"
    message = next(m for m in client.received if m["op"] == "event")
    assert message["seq"] == answers[0]["seq"]
    assert message["event"]["id"] == event_id
    assert message["event"]["source"] == "client"
    assert message["event"]["metadata"] == {"session": "s", "entity": "a7"}


async def test_refused_events_say_why(client: PlainClient) -> None:
    good = {"type": "agent:status", "payload": {"agentId": "a", "status": "s"}}
    for change, code in (
        ({"type": "nofamily:x"}, "bad_request"),
        ({"type": "AGENT"}, "bad_request"),
        ({"payload": {"status": "s"}}, "bad_request"),
        ({"payload": {"agentId": "a", "status": 3}}, "bad_request"),
        ({"payload": {"agentId": "a", "status": "s", "n": 2**60}}, "bad_request"),
        ({"id": "no-uuid"}, "bad_request"),
        ({"id": ""}, "bad_request"),
        ({"metadata": {"entity": "x" * 200}}, "bad_request"),
        ({"metadata": {"priority": "urgent"}}, "bad_request"),
    ):
        assert await client.refusal("publish", event={**good, **change}) == code
    assert await client.refusal("publish") == "bad_request"


async def test_subscription_names_are_taken_and_freed(client: PlainClient) -> None:
    await client.subscribe("all")
    taken = await client.refusal("subscribe", sub="a", channels=["all"])
    assert taken == "duplicate_subscription"
    answer = await client.ask("unsubscribe", sub="a", id="u")
    assert answer == {"op": "unsubscribed", "id": "u", "sub": "a"}
    await client.subscribe("all")


async def test_an_unsubscribed_channel_is_silent(
    client: PlainClient, events: TestPublisher
) -> None:
    await client.subscribe("entity:e")
    await client.subscribe("entity:f", sub="b")
    await client.ask("unsubscribe", sub="a")
    await events.publish(entity="e")
    seq = await events.publish(entity="f")
    assert (await client.expect("event"))["seq"] == seq
    assert len([m for m in client.received if m["op"] == "event"]) == 1


async def test_a_connection_has_at_most_100_subscriptions(client: PlainClient) -> None:
    for number in range(100):
        await client.subscribe(f"entity:e{number}", sub=str(number))
    assert await client.refusal("subscribe", sub="x", channels=["all"]) == "limit_exceeded"
    await client.still_lives()


async def test_filters_that_another_covers_are_dropped(client: PlainClient) -> None:
    answer = await client.subscribe("event:agent:created", "agent.>", "event:agent:*", "user:u")
    assert answer["filters"] == ["agent.*.*.*.*.*.*", "*.*.*.*.*.u.*"]
    many = [f"entity:e{number}" for number in range(65)]
    assert await client.refusal("subscribe", sub="x", channels=many) == "limit_exceeded"


async def test_many_connections_at_once(mesh: RunningGateway, events: TestPublisher) -> None:
    async def watch(subscribed: asyncio.Barrier) -> int:
        async with connect(mesh.url) as client:
            await client.subscribe("all")
            await subscribed.wait()
            return int((await client.expect("event", within=20))["seq"])

    barrier = asyncio.Barrier(101)
    async with asyncio.TaskGroup() as tasks:
        watchers = [tasks.create_task(watch(barrier)) for _ in range(100)]
        await barrier.wait()
        seq = await events.publish()
    assert {watcher.result() for watcher in watchers} == {seq}


@pytest.mark.parametrize("form", [JSON, CBOR])
async def test_what_was_published_right_before_leaving_is_stored(
    mesh: RunningGateway, form: str
) -> None:
    async with connect(mesh.url) as watching:
        await watching.subscribe("all")
        async with connect(mesh.url, form) as leaving:
            for n in range(100):
                event = {"type": "agent:status", "payload": {"agentId": "a", "status": str(n)}}
                await leaving.send("publish", id=n, event=event)
        stored = await watching.events(100)
    assert {message["event"]["payload"]["status"] for message in stored} == set(
        map(str, range(100))
    )


async def test_after_text_that_is_not_utf_8_nothing_is_heard(mesh: RunningGateway) -> None:
    async with connect(mesh.url) as client, connect(mesh.url) as watching:
        await client.expect("welcome")
        await watching.subscribe("all")
        event = {"type": "agent:status", "payload": {"agentId": "a", "status": "after"}}
        publish = json.dumps({"op": "publish", "event": event}).encode()
        frames = [Frame(Opcode.TEXT, text).serialize(mask=True) for text in (b"\xff", publish)]
        client.socket.transport.write(b"".join(frames))
        assert await client.close_code() == 1007
        await watching.still_lives()
        assert watching.seqs() == []


async def test_of_a_client_that_has_left_nothing_waits_for_the_garbage_collector(
    mesh: RunningGateway,
) -> None:
    def clients() -> int:
        return sum(type(each) is Sender for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        async with connect(mesh.url) as client:
            await client.subscribe("all", "user:u")
            await client.subscribe("entity:x", sub="b", since="start")
            await client.expect("live", sub="b")
            await client.subscribe("entity:x", sub="c", conflate_ms=50)
            assert clients() == 1
        await wait_until(lambda: clients() == 0, "the last of what it had")
    finally:
        gc.enable()
