"""Events over plain HTTP: streams, pages, long polls, publishing."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from urllib.parse import urlsplit

import cbor2
import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.gateway.fanout import Fanout
from tests.support.gateway import RunningGateway, gateway
from tests.support.http_client import (
    NDJSON,
    SSE,
    ask,
    get_json,
    next_block,
    next_event,
    next_line,
)
from tests.support.publishing import TestPublisher
from tests.support.waiting import wait_until

ALL = ("all",)


async def test_an_event_stream_begins_with_an_id_and_goes_on_after_it(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    before = await events.publish_many(3)
    async with ask(mesh.url, SSE, channels=ALL, since="start") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        first = await next_block(stream)
        assert list(first) == ["id"]
        blocks = [await next_event(stream) for _ in before]
        assert [block["data"]["seq"] for block in blocks] == before
        live = await next_block(stream)
        assert (live["event"], live["data"]["replayed"]) == ("live", 3)
        after = await events.publish_many(2)
        blocks = [await next_event(stream) for _ in after]
        assert [block["data"]["seq"] for block in blocks] == after
        assert blocks[-1]["id"].endswith(f":{after[-1]}")
        assert blocks[-1]["data"]["event"]["type"] == "agent:created"


async def test_last_event_id_beats_since_so_an_event_source_loses_nothing(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    seqs = await events.publish_many(5)
    async with ask(mesh.url, SSE, channels=ALL, since="start") as stream:
        for _ in range(2):
            last = (await next_event(stream))["id"]
    headers = {"Last-Event-ID": last}
    async with ask(mesh.url, SSE, channels=ALL, since="start", headers=headers) as stream:
        assert (await next_block(stream)) == {"id": last}
        assert [(await next_event(stream))["data"]["seq"] for _ in range(3)] == seqs[2:]


async def test_from_now_on_misses_nothing_after_its_first_id(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    await events.publish_many(3)
    async with ask(mesh.url, SSE, channels=ALL) as stream:
        await next_block(stream)
        seq = await events.publish()
        assert (await next_event(stream))["data"]["seq"] == seq


async def test_json_lines_are_the_protocols_own_messages(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    seqs = await events.publish_many(3, user="u")
    await events.publish(user="v")
    async with ask(mesh.url, NDJSON, channels=("user:u",), since="start") as stream:
        opened = await next_line(stream)
        assert (opened["op"], opened["filters"]) == ("subscribed", ["*.*.*.*.*.u.*"])
        found = [await next_line(stream) for _ in seqs]
        assert [(line["op"], line["seq"]) for line in found] == [("event", seq) for seq in seqs]
        live = await next_line(stream)
        assert (live["op"], live["replayed"]) == ("live", 3)


async def test_a_stream_says_where_the_log_is_while_nothing_matches(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    async with gateway(nats_server, heartbeat=0.2) as mesh:
        await mesh.ready()
        async with ask(mesh.url, SSE, channels=("user:nobody",)) as stream, asyncio.timeout(10):
            await next_block(stream)
            seq = await events.publish(user="somebody")
            heard = 0
            while heard < seq:
                block = await next_block(stream)
                heard = int(block["id"].split(":")[1])
            assert list(block) == ["id"]


async def test_another_logs_cursor_is_a_gap(mesh: RunningGateway, events: TestPublisher) -> None:
    seqs = await events.publish_many(2)
    headers = {"Last-Event-ID": "1:40"}
    async with ask(mesh.url, SSE, channels=ALL, headers=headers) as stream:
        assert await next_block(stream) == {"id": "1:40"}  # a cut before the gap loses no gap
        gap = await next_block(stream)
        assert gap["event"] == "gap"
        assert gap["id"] == gap["data"]["cursor"]
        assert (gap["data"]["from"], gap["data"]["reason"]) == (41, "epoch")
        assert [(await next_event(stream))["data"]["seq"] for _ in seqs] == seqs


async def test_pages_follow_each_other_by_cursor(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    seqs = await events.publish_many(10)
    found, since = [], "start"
    while True:
        status, page = await get_json(mesh.url, channels=ALL, since=since, limit=4)
        assert status == 200
        if not page["events"]:
            break
        assert len(page["events"]) <= 4
        found += [each["seq"] for each in page["events"]]
        since = page["cursor"]
    assert found == seqs


async def test_a_page_without_since_is_empty_and_says_where_the_log_is(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    seq = await events.publish()
    _, page = await get_json(mesh.url, channels=ALL)
    assert page["events"] == []
    assert int(page["cursor"].split(":")[1]) >= seq


async def test_a_long_poll_returns_with_the_next_event(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    _, page = await get_json(mesh.url, channels=("user:u",))
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            get_json(mesh.url, channels=("user:u",), since=page["cursor"], wait=20)
        )
        await asyncio.wait({asking}, timeout=0.3)
        assert not asking.done()
        await events.publish(user="v")
        seq = await events.publish(user="u")
    _, page = asking.result()
    assert [each["seq"] for each in page["events"]] == [seq]


async def test_a_long_poll_without_events_ends_with_a_cursor_that_moved_on(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    _, before = await get_json(mesh.url, channels=("user:u",))
    await events.publish(user="v")
    _, page = await get_json(mesh.url, channels=("user:u",), since=before["cursor"], wait=0.2)
    assert page["events"] == []
    assert page["cursor"] != before["cursor"]


async def test_a_long_poll_ends_when_its_client_has_gone(mesh: RunningGateway) -> None:
    async with asyncio.TaskGroup() as tasks:
        polling = tasks.create_task(get_json(mesh.url, channels=ALL, wait=60))
        async with asyncio.timeout(10):
            while "mesh_connections 1.0" not in (await mesh.get("/metrics"))[1]:
                pass
        polling.cancel()
    async with asyncio.timeout(10):
        while "mesh_connections 0.0" not in (await mesh.get("/metrics"))[1]:
            pass


async def test_a_page_tells_one_gap_before_its_events(
    mesh: RunningGateway, events: TestPublisher
) -> None:
    seqs = await events.publish_many(6)
    _, page = await get_json(mesh.url, channels=ALL, since="start", limit=1)
    await events.jetstream.purge_stream("EVENTS", seq=seqs[4])
    _, page = await get_json(mesh.url, channels=ALL, since=page["cursor"])
    assert (page["gap"]["from"], page["gap"]["to"]) == (seqs[1], seqs[3])
    assert page["gap"]["reason"] == "expired"
    assert [each["seq"] for each in page["events"]] == seqs[4:]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "bad_request"),
        ({"channels": ("nonsense:x",)}, "bad_channel"),
        ({"channels": ALL, "since": "yesterday"}, "bad_cursor"),
        ({"channels": ALL, "limit": 0}, "bad_request"),
        ({"channels": ALL, "limit": 1001}, "bad_request"),
        ({"channels": ALL, "wait": "long"}, "bad_request"),
        ({"channels": ALL, "chanel": "x"}, "bad_request"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", SSE, NDJSON])
async def test_what_is_wrong_is_said_before_anything_begins(
    mesh: RunningGateway, params: dict[str, object], code: str, accept: str
) -> None:
    async with ask(mesh.url, accept, **params) as answer:  # type: ignore[arg-type]
        assert answer.status == 400
        assert json.loads(await answer.text())["code"] == code


async def test_digits_are_seconds(mesh: RunningGateway, events: TestPublisher) -> None:
    seq = await events.publish()
    _, page = await get_json(mesh.url, channels=ALL, since="600")
    assert [each["seq"] for each in page["events"]] == [seq]


async def test_what_nobody_offers_is_not_acceptable(mesh: RunningGateway) -> None:
    async with ask(mesh.url, "text/html", channels=ALL) as answer:
        assert answer.status == 406


EVENT = {"type": "agent:status", "payload": {"agentId": "a", "status": "idle"}}


@pytest.mark.parametrize("form", ["json", "cbor"])
async def test_one_event_is_published_and_answered_once_it_is_in_the_log(
    mesh: RunningGateway, form: str
) -> None:
    body = json.dumps(EVENT).encode() if form == "json" else cbor2.dumps(EVENT)
    headers = {"Content-Type": f"application/{form}"}
    status, stored = await get_json(mesh.url, method="POST", body=body, headers=headers)
    assert status == 200
    _, page = await get_json(mesh.url, channels=ALL, since="start")
    (found,) = page["events"]
    assert (found["seq"], found["event"]["id"]) == (stored["seq"], stored["id"])
    assert found["event"]["source"] == "client"


async def test_a_list_is_published_in_order_and_each_event_is_answered(
    mesh: RunningGateway,
) -> None:
    body = json.dumps([EVENT, {"type": "agent:status", "payload": {}}, EVENT, 3]).encode()
    status, answers = await get_json(mesh.url, method="POST", body=body)
    assert status == 400
    assert answers[0]["seq"] < answers[2]["seq"]
    assert [answer.get("code") for answer in answers] == [None, "bad_request"] * 2


async def test_a_client_that_goes_while_it_publishes_is_no_failure_of_ours(
    mesh: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    port = mesh.settings.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{"
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    async with ask(mesh.url, method="HEAD", channels=ALL) as answer:
        assert answer.status == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("body", [b"", b"nonsense", b"3", b'{"no": "type"}'])
async def test_a_body_that_is_no_event_is_refused(mesh: RunningGateway, body: bytes) -> None:
    status, answer = await get_json(mesh.url, method="POST", body=body)
    assert (status, answer["code"]) == (400, "bad_request")


async def test_a_body_over_its_limit_is_refused(mesh: RunningGateway) -> None:
    body = json.dumps({**EVENT, "payload": "x" * (1 << 20)}).encode()
    status, answer = await get_json(mesh.url, method="POST", body=body)
    assert (status, answer["code"]) == (413, "too_large")


async def test_a_drain_ends_streams_and_polls_with_when_to_come_back(
    nats_server: NatsServer,
) -> None:
    async with gateway(nats_server) as mesh:
        await mesh.ready()
        async with ask(mesh.url, SSE, channels=ALL) as stream, asyncio.TaskGroup() as tasks:
            await next_block(stream)
            polling = tasks.create_task(get_json(mesh.url, channels=ALL, wait=60))
            await asyncio.wait({polling}, timeout=0.2)
            mesh.drain()
            assert polling in (await asyncio.wait({polling}, timeout=10))[0]
            text = await stream.text()
            assert "retry: " in text
        assert polling.result()[0] == 200


async def test_metrics_say_who_is_there(mesh: RunningGateway) -> None:
    async with ask(mesh.url, SSE, channels=ALL) as stream:
        await next_block(stream)
        status, text = await mesh.get("/metrics")
    assert status == 200
    assert "mesh_connections 1.0" in text
    assert "mesh_subscriptions 1.0" in text
    assert 'mesh_gaps_total{reason="expired"} 0.0' in text
    assert 'mesh_resyncs_total{reason="leader"} 0.0' in text


async def test_a_stream_that_was_left_is_in_no_group_any_more(
    nats_server: NatsServer, events: TestPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fanouts: list[Fanout] = []
    monkeypatch.setattr(
        "jarvis_mesh.gateway.gateway.Fanout",
        lambda flusher: fanouts.append(Fanout(flusher)) or fanouts[-1],
    )
    async with gateway(nats_server) as mesh:
        await mesh.ready()
        for accept in (SSE, NDJSON):
            async with ask(mesh.url, accept, channels=ALL) as stream:
                await stream.until("live")
                assert fanouts[0].members == 1
            await wait_until(lambda: fanouts[0].members == 0, "its leave")


async def test_asking_for_a_websocket_in_the_middle_of_a_stream_ends_both(
    mesh: RunningGateway,
) -> None:
    address = urlsplit(mesh.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    stream = f"GET /v1/events?channel=all HTTP/1.1\r\nHost: localhost\r\nAccept: {SSE}\r\n\r\n"
    writer.write(f"{stream}GET /v1/ws HTTP/1.1\r\n{head}{key}\r\n".encode())
    async with asyncio.timeout(5):
        assert b"101 Switching" not in await reader.read()
    writer.close()
    while "mesh_connections 0.0" not in (await mesh.get("/metrics"))[1]:
        await wait_until(lambda: True)


async def test_a_page_of_an_allowed_origin_reads_a_stream_and_another_doesnt(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    async with gateway(nats_server, allowed_origins="https://app.example") as mesh:
        await mesh.ready()
        origin = {"Origin": "https://app.example"}
        async with ask(mesh.url, SSE, channels=("all",), headers=origin) as stream:
            assert stream.headers["access-control-allow-origin"] == "https://app.example"
            assert stream.headers["x-content-type-options"] == "nosniff"
            await next_block(stream)
            seq = await events.publish()
            assert (await next_event(stream))["data"]["seq"] == seq
        origin = {"Origin": "https://evil.example"}
        async with ask(mesh.url, SSE, channels=("all",), headers=origin) as stream:
            assert stream.status == 403
            assert "access-control-allow-origin" not in stream.headers


async def test_the_page_lets_nothing_in_and_nobody_frame_it(mesh: RunningGateway) -> None:
    with await asyncio.to_thread(urllib.request.urlopen, mesh.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "script" not in policy
    assert policy.endswith("frame-ancestors 'none'")
