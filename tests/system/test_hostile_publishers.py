"""Whatever a publisher's NATS connection sends, the other events come, live and in replay."""

from __future__ import annotations

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import encode_body
from tests.support.gateway import RunningGateway
from tests.support.plain_client import Message, PlainClient, connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.raw_nats import HEADERS, raw_nats
from tests.system.test_faults import wait_until_ready

SOURCE = "agent-service"


async def until(client: PlainClient, seq: int) -> list[Message]:
    """Return events and gaps up to the event at *seq*."""
    found = []
    while True:
        message = await client.next()
        if message["op"] in ("event", "gap"):
            found.append(message)
        if message["op"] == "event" and message["seq"] == seq:
            return found


def places(messages: list[Message]) -> list[int]:
    return [message.get("seq") or message["from"] for message in messages]


@pytest.mark.parametrize("header", HEADERS, ids=repr)
async def test_odd_headers_stop_nobody(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher, header: bytes
) -> None:
    event = make_event(source=SOURCE)
    async with raw_nats(nats_server, SOURCE) as attacker, connect(mesh.url) as client:
        await client.subscribe("all")
        first = await events.publish()
        await attacker.hpub(event.subject, header, encode_body(event))
        last = await events.publish()
        live = places(await until(client, last))
        await client.subscribe("all", sub="b", since="start")
        replayed = places(await until(client, last))
    assert live == replayed == [first, first + 1, last]


async def test_events_on_no_subject_of_ours_are_passed_over(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    async with connect(mesh.url) as client:
        await client.subscribe("agent.>")
        await events.jetstream.publish("agent.odd", b"")
        await events.jetstream.publish("agent.a.b.c.d.e.f.g", b"")
        seqs = [await events.publish()]
        await client.subscribe("agent.>", "terminal.>", sub="b", since="start")
        assert places(await until(client, seqs[0])) == seqs
        nats_server.kill()
        await nats_server.wait()
        await nats_server.start()
        await wait_until_ready(mesh)
        await events.jetstream.publish("agent.odd", b"")
        seqs.append(await events.publish())
        assert (await client.expect("event", seq=seqs[1]))["seq"] == seqs[1]


async def test_answers_steered_into_the_log_or_the_live_feed_are_never_shown(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    event = make_event(source=SOURCE)
    async with raw_nats(nats_server, SOURCE) as attacker, connect(mesh.url) as client:
        await client.subscribe("all")
        for reply in (
            f"live.{event.subject}",
            "agent.created._.victim._._._",
            "mesh.tick._.client.x._._",
        ):
            again = make_event(source=SOURCE)
            await attacker.hpub(again.subject, b"NATS/1.0\r\n\r\n", encode_body(again), reply)
        last = await events.publish()
        shown = [m for m in await until(client, last) if m["op"] == "event"]
    assert {message["event"]["source"] for message in shown} == {SOURCE, "tests"}
    assert len(shown) == 4
