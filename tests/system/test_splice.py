"""Replay joined to the live feed under load: every event once and in order, whatever breaks."""

from __future__ import annotations

import asyncio
import os
import random

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import SystemClock, encode_body
from tests.support.agreement import compare, wait_for_all
from tests.support.followers import Journal
from tests.support.gateway import RunningGateway, gateway
from tests.support.nats_proxy import nats_proxy
from tests.support.plain_client import connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.subscription import Subscription
from tests.support.truth import read_whole_log
from tests.support.websocket_follower import WebSocketFollower

RATE = 2_000
CUTS = 100
SUBPROTOCOLS = ("mesh.v1.json", "mesh.v1.cbor")
CLOCK = SystemClock()


async def publish_at_rate(
    events: TestPublisher, stopping: asyncio.Event, *, rate: int = RATE
) -> int:
    """Publish *rate* events a second until told to stop; return how many the log confirmed."""
    pending: list[asyncio.Future[object]] = []
    started = CLOCK.monotonic()
    while not stopping.is_set():
        while len(pending) < (CLOCK.monotonic() - started) * rate:
            event = make_event(
                "agent:created" if random.random() < 0.5 else "agent:task:started",
                payload={"agentId": "a", "taskId": "t"},
                entity=f"e{random.randrange(5)}",
                user=f"u{random.randrange(5)}",
            )
            future = await events.jetstream.publish_async(
                event.subject, encode_body(event), headers={"Nats-Msg-Id": event.id}
            )
            pending.append(future)
        await CLOCK.sleep(0.005)
    await asyncio.gather(*pending)
    return len(pending)


async def test_100_random_disconnects_under_load_lose_and_repeat_nothing(
    nats_server: NatsServer, mesh: RunningGateway, events: TestPublisher
) -> None:
    seed = int(os.environ.get("MESH_TEST_SEED", random.randrange(2**32)))
    print(f"MESH_TEST_SEED={seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    journal, published = Journal(), asyncio.Event()
    async with gateway(nats_server) as second, asyncio.TaskGroup() as tasks:
        await second.ready()
        followers = [
            WebSocketFollower(
                f"client {number}",
                {
                    "everything": Subscription(["all"], "start"),
                    "created": Subscription(["event:agent:created"], "start"),
                    "mine": Subscription(["user:u1", "entity:e2"], "start"),
                    "both": Subscription(["event:agent:task:started&user:u3"], "start"),
                },
                [mesh.url, second.url],
                journal,
                random.Random(chance.random()),
                subprotocol=SUBPROTOCOLS[number % 2],
            )
            for number in range(4)
        ]
        publishing = tasks.create_task(publish_at_rate(events, published))
        following = [tasks.create_task(follower.run()) for follower in followers]
        for _ in range(CUTS):
            await CLOCK.sleep(chance.uniform(0.02, 0.12))
            chance.choice(followers).cut()
        published.set()
        count = await publishing
        log = await read_whole_log(nats_server.url("admin"))
        assert len(log.events) == count
        await wait_for_all(followers, log)
        for task in following:
            task.cancel()

    assert journal.connections > CUTS / 2
    compare(followers, journal, log)


async def test_a_live_connection_that_breaks_again_and_again_loses_and_repeats_nothing(
    nats_server: NatsServer, events: TestPublisher
) -> None:
    """Subscriptions are opened at any moment, while the gateway's SUBs reach NATS late."""
    journal, published = Journal(), asyncio.Event()

    async def keep_subscribing(url: str) -> None:
        """Keep barriers under way, so that breaks hit some of them."""
        while not published.is_set():
            async with connect(url) as client:
                for number in range(20):
                    channels = [f"session:{random.random()}"]
                    await client.send("subscribe", sub=str(number), channels=channels, id=number)
                await client.expect_answer(19)

    async with (
        nats_proxy(nats_server, delay=0.02) as proxy,
        gateway(nats_server, nats_url=proxy.url("gateway")) as mesh,
        asyncio.TaskGroup() as tasks,
    ):
        await mesh.ready()
        followers = [
            WebSocketFollower(
                f"client {number}",
                {
                    "mine": Subscription([f"user:u{number % 5}"], "start"),
                    "ours": Subscription([f"entity:e{number % 5}"], "start"),
                    "all": Subscription(["all"], "start"),
                },
                [mesh.url],
                journal,
                random.Random(),
                subprotocol=SUBPROTOCOLS[1],
            )
            for number in range(6)
        ]
        publishing = tasks.create_task(publish_at_rate(events, published, rate=500))
        following = [tasks.create_task(follower.run()) for follower in followers]
        for _ in range(2):
            tasks.create_task(keep_subscribing(mesh.url))
        for _ in range(8):
            await CLOCK.sleep(random.uniform(0.1, 0.6))
            proxy.break_live()
            for follower in random.sample(followers, 3):
                await CLOCK.sleep(random.uniform(0, 0.2))
                follower.cut()
        published.set()
        await publishing
        log = await read_whole_log(nats_server.url("admin"))
        await wait_for_all(followers, log)
        for task in following:
            task.cancel()
        assert proxy.breaks >= 4
    compare(followers, journal, log)
