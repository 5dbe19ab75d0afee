"""What clients see when a part of the mesh goes away and comes back."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import psutil
import pytest
import websockets

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema.errors import SetupError
from tests.conftest import StartNats
from tests.support.gateway import RunningGateway, gateway
from tests.support.plain_client import connect
from tests.support.publishing import TestPublisher, publisher
from tests.support.waiting import wait_until


async def test_events_stored_while_the_gateway_had_lost_nats_arrive_once(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    async with connect(mesh.url) as client:
        await client.subscribe("event:agent:**")
        await client.subscribe("user:u", sub="b")
        seqs = [await events.publish(user="u")]
        nats_server.kill()
        await nats_server.wait()
        await nats_server.start()
        # The gateway's own reconnect takes a moment, in which these are stored.
        async with publisher(nats_server) as second:
            seqs += await second.publish_many(300, user="u")
        await wait_until_ready(mesh)
        seqs.append(await events.publish(user="u"))
        received = await client.events(len(seqs))
        assert [message["seq"] for message in received] == seqs


async def wait_until_ready(mesh: RunningGateway) -> None:
    async with asyncio.timeout(10):
        await mesh.ready()


async def test_a_replay_waits_while_nats_is_away(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    seqs = await events.publish_many(20)
    async with connect(mesh.url) as client:
        await client.subscribe("all")
        nats_server.kill()
        await nats_server.wait()
        answer = await client.ask("subscribe", sub="b", channels=["all"], since="start")
        assert (answer["code"], answer["retryable"]) == ("unavailable", True)
        assert (await mesh.get("/readyz"))[0] == 503
        assert (await mesh.get("/healthz"))[0] == 200
        await nats_server.start()
        await wait_until_ready(mesh)
        await client.subscribe("all", sub="b", since="start")
        assert [message["seq"] for message in await client.events(20)] == seqs


async def test_after_a_hole_too_large_to_repair_clients_are_caught_up_where_they_are(
    nats_server: NatsServer,
    mesh: RunningGateway,
    events: TestPublisher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jarvis_mesh.gateway.live_feed.MAX_REPAIR", 50)
    async with connect(mesh.url) as client:
        await client.subscribe("all")
        nats_server.kill()
        await nats_server.wait()
        await nats_server.start()
        async with publisher(nats_server) as second:
            seqs = await second.publish_many(300)
        assert (await client.expect("lagging"))["behind"] >= 0
        await client.expect("live")
        seqs.append(await events.publish())
        await wait_until(lambda: True)
        while len(client.seqs()) < len(seqs):
            await client.next()
        assert client.seqs() == seqs


async def test_a_log_made_anew_is_noticed_and_clients_learn_of_the_gap(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    await events.publish_many(5)
    async with connect(mesh.url) as client:
        cursor = (await client.subscribe("all"))["cursor"]
        await events.jetstream.delete_stream("EVENTS")
        await set_up_log(nats_server.url("admin"), LogSettings())
        await client.expect("closing", reason="epoch", within=3)
    seq = await events.publish()
    async with connect(mesh.url) as client:
        await client.subscribe("all", since=cursor)
        gap = await client.expect("gap", sub="a")
        assert gap["reason"] == "epoch"
        assert (await client.expect("event"))["seq"] == seq


async def test_a_log_that_forgot_events_is_noticed_and_clients_learn_of_the_gap(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher, tmp_path: Path
) -> None:
    """A power loss, as a lone nats-server has it: its store is that of some seconds ago."""
    store = tmp_path / "nats-0"
    await events.publish_many(3)
    await nats_server.stop()
    shutil.copytree(store, tmp_path / "earlier")
    await nats_server.start()
    await wait_until_ready(mesh)
    seqs = await events.publish_many(50)
    async with connect(mesh.url) as client:
        await client.subscribe("all", since="start")
        await client.events(53)
        await nats_server.stop()
        shutil.rmtree(store)
        shutil.move(tmp_path / "earlier", store)
        await nats_server.start()
        await client.expect("closing", reason="reset")
    await wait_until_ready(mesh)
    async with connect(mesh.url) as client:
        epoch = (await client.expect("welcome"))["cursor"].split(":")[0]
        await client.subscribe("all", since=f"{epoch}:{seqs[-1]}")
        assert (await client.expect("gap", sub="a"))["reason"] == "reset"
        assert [message["seq"] for message in await client.events(3)] == [1, 2, 3]
        new = await events.publish()
        assert (await client.expect("event"))["seq"] == new


async def test_without_a_log_nothing_is_served_and_it_says_so(start_nats: StartNats) -> None:
    server = await start_nats(None)
    async with gateway(server, nats_admin_url=None) as mesh:
        assert (await mesh.get("/healthz"))[0] == 200
        async with connect(mesh.url) as client:
            welcome = await client.expect("welcome")
            assert "cursor" not in welcome
            answer = await client.ask("subscribe", sub="a", channels=["all"])
            assert (answer["code"], answer["retryable"]) == ("unavailable", True)
            assert (await mesh.get("/readyz"))[0] == 503
            await set_up_log(server.url("admin"), LogSettings())
            await wait_until_ready(mesh)
            await client.subscribe("all", sub="b")


async def test_a_drain_tells_every_client_to_come_back_and_leaves_nobody(
    nats_server: NatsServer,
) -> None:
    async with gateway(nats_server) as mesh:
        await mesh.ready()
        async with connect(mesh.url) as one, connect(mesh.url, "mesh.v1.cbor") as two:
            await one.subscribe("all")
            mesh.drain()
            for client in (one, two):
                closing = await client.expect("closing", reason="draining")
                assert 0 <= closing["retry_ms"] <= 2000
                assert await client.close_code() == 1012
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", mesh.settings.port)


async def test_heartbeats_move_the_cursor_of_a_quiet_subscription(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    async with gateway(nats_server, heartbeat=0.2) as mesh:
        await mesh.ready()
        async with connect(mesh.url) as client:
            await client.subscribe("user:nobody")
            seq = await events.publish(user="somebody")
            async with asyncio.timeout(10):
                while True:
                    heartbeat = await client.expect("heartbeat")
                    if int(heartbeat["cursor"].split(":")[1]) >= seq:
                        break
    assert not [message for message in client.received if message["op"] == "event"]


async def test_an_idle_log_stays_idle(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    await events.publish()
    jetstream = events.jetstream

    async def last() -> tuple[int, str]:
        info = await jetstream.stream_info("EVENTS")
        message = await jetstream.get_msg("EVENTS", info.state.last_seq)
        assert message.subject is not None
        return info.state.last_seq, message.subject

    async with asyncio.timeout(10):
        while not (await last())[1].startswith("mesh.tick."):
            await wait_until(lambda: True)
    before = await last()
    async with connect(mesh.url) as client:
        for number in range(3):
            await client.subscribe(f"user:u{number}", sub=str(number))
        assert (await client.ask("ping"))["op"] == "pong"
    assert await last() == before


async def test_a_nats_server_that_is_stopped_and_continued_loses_nothing(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    async with connect(mesh.url) as client, asyncio.TaskGroup() as tasks:
        await client.subscribe("all")
        seqs = await events.publish_many(10)
        process = psutil.Process(nats_server.pid)
        process.suspend()
        try:
            await wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "its stop")
            publishing = tasks.create_task(events.publish())
            await asyncio.wait({publishing}, timeout=1)
            assert not publishing.done()
        finally:
            process.resume()
        seqs += [await publishing, *await events.publish_many(10)]
        assert [message["seq"] for message in await client.events(21)] == seqs


async def test_two_gateways_serve_one_cursor(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    async with gateway(nats_server) as other:
        await other.ready()
        async with connect(mesh.url) as client:
            cursor = (await client.subscribe("all"))["cursor"]
        seqs = await events.publish_many(3)
        async with connect(other.url) as client:
            await client.subscribe("all", since=cursor)
            assert [message["seq"] for message in await client.events(3)] == seqs


async def test_pages_of_other_sites_are_refused(mesh: RunningGateway) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect(mesh.url, origin="https://evil.example"):
            pass
    assert refusal.value.response.status_code == 403
    assert (await mesh.get("/", Host="evil.example"))[0] == 403
    async with connect(mesh.url, origin=mesh.url) as client:
        await client.expect("welcome")


async def test_the_page_names_the_next_command(mesh: RunningGateway) -> None:
    status, text = await mesh.get("/")
    assert status == 200
    assert "mesh sub all" in text


async def test_a_log_that_cannot_be_made_ends_the_gateway_with_the_reason(
    start_nats: StartNats,
) -> None:
    server = await start_nats(None)
    with pytest.RaisesGroup(pytest.RaisesExc(SetupError, match="can't be made")):
        async with gateway(server, log_replicas=3):
            await asyncio.get_running_loop().create_future()  # cancelled by the gateway's end
