"""Publishing to a real nats-server, also to one that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter

import nats
import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.publishers.base import EventPublisher
from jarvis_mesh.publishers.window import WindowLimits
from jarvis_mesh.schema.errors import (
    EventError,
    ForbiddenError,
    OutcomeUnknownError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from jarvis_mesh.schema.types import TypeRegistry
from tests.conftest import StartNats
from tests.support.clock import ManualClock
from tests.support.log_reading import read_log
from tests.support.waiting import wait_until

AGENT = "agent-service"


def connect(server: NatsServer, **options: object) -> EventPublisher:
    return EventPublisher(AGENT, server.url(AGENT), **options)  # type: ignore[arg-type]


async def test_a_published_event_is_in_the_log_with_what_it_was_given(
    nats_server: NatsServer,
) -> None:
    async with connect(nats_server) as publisher:
        published = await publisher.publish(
            "agent:created", {"agentId": "a1", "x": 1}, user="alice", priority="high"
        )
    [logged] = await read_log(nats_server)
    assert (logged.seq, logged.event.id) == (published.seq, published.id)
    assert logged.subject == "agent.created._.agent-service.a1.alice._"
    assert logged.event.payload == {"agentId": "a1", "x": 1}
    assert logged.event.metadata.priority == "high"


async def test_a_system_event_is_about_this_host_unless_it_names_one(
    nats_server: NatsServer,
) -> None:
    source = "system-monitor"
    async with EventPublisher(source, nats_server.url(source)) as publisher:
        await publisher.publish("system:status", {"status": "up"})
        await publisher.publish("system:status", {"status": "up", "host": "elsewhere"})
    logged = await read_log(nats_server)
    assert [item.event.metadata.entity for item in logged] == [socket.gethostname(), "elsewhere"]


async def test_many_are_under_way_at_once_and_stay_in_order(nats_server: NatsServer) -> None:
    async with connect(nats_server, limits=WindowLimits(max_events=64)) as publisher:
        futures = [
            await publisher.send("agent:message", {"agentId": "a", "message": str(n)})
            for n in range(2_000)
        ]
        assert publisher.unacked <= 64
        assert await publisher.flush()
        assert [future.result().seq for future in futures] == list(range(1, 2_001))
    logged = await read_log(nats_server)
    assert [item.event.payload["message"] for item in logged] == [str(n) for n in range(2_000)]


async def test_every_publish_that_returned_is_in_the_log_once_though_nats_is_killed(
    nats_server: NatsServer,
) -> None:
    stop = asyncio.Event()
    returned: list[str] = []

    async def publish_on(publisher: EventPublisher, worker: int) -> None:
        while not stop.is_set():
            published = await publisher.publish("agent:updated", {"agentId": f"a{worker}"})
            returned.append(published.id)

    async with connect(nats_server) as publisher, asyncio.TaskGroup() as group:
        for worker in range(20):
            group.create_task(publish_on(publisher, worker))
        for _ in range(3):
            before = len(returned)
            await wait_until(lambda before=before: len(returned) > before + 300)
            nats_server.kill()
            await nats_server.wait()
            await nats_server.start()
        before = len(returned)
        await wait_until(lambda: len(returned) > before + 300)
        stop.set()
    counts = Counter(item.event.id for item in await read_log(nats_server))
    assert set(counts.values()) == {1}
    assert set(returned) <= set(counts)
    assert publisher.lost == 0


async def test_events_sent_while_nats_is_away_arrive_when_it_is_back(
    nats_server: NatsServer,
) -> None:
    async with connect(nats_server) as publisher:
        await nats_server.stop()
        await wait_until(lambda: not publisher.is_connected)
        futures = [
            await publisher.send("agent:message", {"agentId": "a", "message": str(n)})
            for n in range(50)
        ]
        await nats_server.start()
        await asyncio.gather(*futures)
    logged = await read_log(nats_server)
    assert [item.event.payload["message"] for item in logged] == [str(n) for n in range(50)]


async def test_while_nats_is_away_no_more_is_kept_than_the_window_holds(
    nats_server: NatsServer,
) -> None:
    limits = WindowLimits(max_events=10)
    async with connect(nats_server, limits=limits, close_timeout=0) as publisher:
        await nats_server.stop()
        await wait_until(lambda: not publisher.is_connected)
        futures = [publisher.send_nowait("agent:created", {"agentId": "a"}) for _ in range(10)]
        with pytest.raises(UnavailableError, match="no room"):
            publisher.send_nowait("agent:created", {"agentId": "a"})
        assert publisher.refused == 1
        with pytest.raises(UnavailableError, match="the time was over"):
            await publisher.send("agent:created", {"agentId": "a"}, timeout=0.2)
        assert not await publisher.wait_for_room(1, within=10.0)
        assert publisher.unacked == 10
    for future in futures:
        with pytest.raises(UnavailableError, match="was closed"):
            future.result()
    assert publisher.lost == 11


async def test_a_source_of_another_user_is_refused_at_once(nats_server: NatsServer) -> None:
    url = nats_server.url(AGENT)
    async with EventPublisher("Somebody-Else", url) as publisher, asyncio.timeout(2):
        with pytest.raises(ForbiddenError, match=r"'agent-service' .* source 'Somebody-Else'"):
            await publisher.publish("agent:created", {"agentId": "a"})


async def test_a_wrong_password_is_said_without_showing_it(nats_server: NatsServer) -> None:
    url = f"nats://{AGENT}:wrong-word@127.0.0.1:{nats_server.port}"
    with pytest.raises(UnauthorizedError, match="'agent-service'") as caught:
        async with EventPublisher(AGENT, url):
            pass
    assert "wrong-word" not in str(caught.value)


async def test_entering_fails_soon_when_nats_is_away() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9") as caught:
        async with EventPublisher(AGENT, "nats://u:secret@127.0.0.1:9", connect_timeout=1.0):
            pass
    assert "secret" not in str(caught.value)


async def test_entering_fails_in_time_when_the_port_does_not_speak() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(5), EventPublisher(AGENT, url, connect_timeout=0.3):
                pass


@pytest.mark.parametrize(
    ("event_type", "payload", "filing", "complaint"),
    [
        ("agent:created", {}, {}, "agentId"),
        ("agent:creatd", {"agentId": "a"}, {}, "did you mean 'agent:created'"),
        ("deploy:started", {}, {}, "MESH_FAMILIES"),
        ("agent:created", {"agentId": "\ud800"}, {}, "surrogate"),
        ("agent:created", {"agentId": "a" * 129}, {}, "129 bytes"),
        ("agent:created", {"agentId": "a", "x": b"1"}, {}, "base64"),
        ("agent:created", {"agentId": "a", "x": float("nan")}, {}, "finite"),
        ("agent:created", {"agentId": "a"}, {"id": "7"}, "UUIDv7"),
        ("agent:created", {"agentId": "a"}, {"usr": "u"}, "usr"),
    ],
)
async def test_an_event_that_the_schema_refuses_says_why(
    nats_server: NatsServer,
    event_type: str,
    payload: dict[str, object],
    filing: dict[str, str],
    complaint: str,
) -> None:
    async with connect(nats_server) as publisher:
        with pytest.raises(EventError, match=complaint):
            await publisher.publish(event_type, payload, **filing)  # type: ignore[arg-type]
    assert await read_log(nats_server) == []


async def test_an_event_over_a_million_bytes_is_refused(nats_server: NatsServer) -> None:
    noise = os.urandom(1_100_000).hex()
    async with connect(nats_server) as publisher:
        with pytest.raises(TooLargeError):
            await publisher.publish("agent:message", {"agentId": "a", "message": noise})


async def test_the_same_id_is_stored_once(nats_server: NatsServer) -> None:
    async with connect(nats_server) as publisher:
        first = await publisher.publish("agent:created", {"agentId": "a"})
        again = await publisher.publish("agent:created", {"agentId": "a"}, id=first.id)
    assert again == first


async def test_a_log_that_comes_late_gets_the_event(start_nats: StartNats) -> None:
    server = await start_nats(None)
    async with connect(server) as publisher, asyncio.TaskGroup() as group:
        task = group.create_task(publisher.publish("agent:created", {"agentId": "a"}))
        await wait_until(lambda: publisher.unacked)
        await set_up_log(server.url("admin"), LogSettings())
        assert (await task).seq == 1


async def test_without_a_log_the_error_says_that_nothing_was_stored(
    start_nats: StartNats,
) -> None:
    server = await start_nats(None)
    async with connect(server) as publisher:
        with pytest.raises(UnavailableError, match=r"isn't in the log.*lacks its family"):
            await publisher.publish("agent:created", {"agentId": "a"}, timeout=0.4)


async def test_without_an_answer_the_tries_end_after_100_s_with_the_outcome_unknown(
    nats_server: NatsServer,
) -> None:
    clock = ManualClock()
    async with connect(nats_server, clock=clock, close_timeout=0) as publisher:
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            ack = publisher.send_nowait("agent:created", {"agentId": "a"})
            await wait_until(lambda: publisher.unacked)
            await clock.advance(99.0)
            assert not ack.done()
            await clock.advance(1.2)
            with pytest.raises(OutcomeUnknownError, match="same id"):
                await ack
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)


async def test_never_sent_in_100_s_means_that_nothing_was_stored(nats_server: NatsServer) -> None:
    clock = ManualClock()
    async with connect(nats_server, clock=clock, close_timeout=0) as publisher:
        await nats_server.stop()
        await wait_until(lambda: not publisher.is_connected)
        ack = publisher.send_nowait("agent:created", {"agentId": "a"})
        await clock.advance(99.0)
        assert not ack.done()
        await clock.advance(1.2)
        with pytest.raises(UnavailableError, match="isn't in the log"):
            await ack
    assert publisher.lost == 1


async def test_closing_while_nats_is_frozen_does_not_hang(nats_server: NatsServer) -> None:
    async with connect(nats_server, close_timeout=0.2) as publisher:
        os.kill(nats_server.pid, signal.SIGSTOP)
        noise = os.urandom(300_000).hex()
        acks = [
            publisher.send_nowait("agent:message", {"agentId": "a", "message": noise})
            for _ in range(10)
        ]
    os.kill(nats_server.pid, signal.SIGCONT)
    for ack in acks:
        with pytest.raises((OutcomeUnknownError, UnavailableError)):
            ack.result()


async def test_the_bodys_own_error_leaves_as_it_is(nats_server: NatsServer) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connect(nats_server):
            raise ZeroDivisionError


async def test_a_closed_publisher_says_so(nats_server: NatsServer) -> None:
    publisher = connect(nats_server)
    async with publisher:
        pass
    with pytest.raises(UnavailableError, match="isn't open"):
        await publisher.publish("agent:created", {"agentId": "a"})


async def test_types_of_ones_own_pass_within_the_families(nats_server: NatsServer) -> None:
    types = TypeRegistry(allow_unregistered=True)
    async with connect(nats_server, types=types) as publisher:
        await publisher.publish("agent:thought", {"anything": None})
    [logged] = await read_log(nats_server)
    assert logged.event.type == "agent:thought"


async def test_a_connection_cut_by_the_server_is_replaced(nats_server: NatsServer) -> None:
    """`nats-server` ends a connection with -ERR: nats-py would close for ever."""
    async with connect(nats_server) as publisher:
        await publisher.publish("agent:created", {"agentId": "a"})
        link = publisher._delivery._link
        await link._client._process_err("'some error'")
        await wait_until(lambda: publisher._delivery._link is not link)
        assert (await publisher.publish("agent:created", {"agentId": "b"})).seq == 2


async def test_json_is_all_that_the_acknowledgement_needs(nats_server: NatsServer) -> None:
    """The PubAck that `answers.parse_answer` relies on, as this nats-server writes it."""
    admin = await nats.connect(nats_server.url("admin"))
    try:
        reply = await admin.request("agent.x._.t._._._", b"x")
    finally:
        await admin.close()
    assert json.loads(reply.data) == {"stream": "EVENTS", "seq": 1}
