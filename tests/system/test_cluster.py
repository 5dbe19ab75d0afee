"""A mesh on three nats-servers that loses the stream's leader."""

from __future__ import annotations

import asyncio
import random

import pytest
from nats.js import JetStreamContext

from jarvis_mesh.schema import encode_body
from tests.support.agreement import compare, wait_for_all
from tests.support.cluster import Cluster, stream_info
from tests.support.followers import Journal
from tests.support.gateway import gateway
from tests.support.publishing import make_event, publisher
from tests.support.subscription import Subscription
from tests.support.truth import read_whole_log
from tests.support.websocket_follower import WebSocketFollower

# nats-py (2.16) asks nodes that it has discovered without the password, and forgets the socket
# over which it was refused: what a test's own publisher leaves is let go of at any moment.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")


async def test_a_cluster_that_loses_its_stream_leader_has_another_and_is_whole_again(
    nats_cluster: Cluster,
) -> None:
    leader = await nats_cluster.stream_leader()
    follower = next(node for node in nats_cluster.nodes if node is not leader)
    async with publisher(follower) as events:
        before = await events.publish()
        leader.kill()
        await leader.wait()
        second = await nats_cluster.stream_leader(other_than=leader)
        assert second is not leader
        assert await events.publish() > before
        await leader.start()
        await nats_cluster.whole()
    info = await stream_info(nats_cluster.url("admin"))
    assert info["config"]["num_replicas"] == 3
    assert info["state"]["messages"] == 2


async def test_copies_that_die_with_the_leader_in_a_burst_arrive_all_the_same(
    nats_cluster: Cluster,
) -> None:
    """What it has stored and not yet republished, nobody republishes: it is in the log alone."""
    journal, chance = Journal(), random.Random()
    async with (
        gateway(nats_cluster, nats_admin_url=None) as mesh,
        publisher(nats_cluster) as events,
        asyncio.TaskGroup() as tasks,
    ):
        await mesh.ready()
        followers = [
            WebSocketFollower(name, wanted, [mesh.url], journal, chance, subprotocol="mesh.v1.cbor")
            for name, wanted in (
                ("all", {"a": Subscription(["all"]), "b": Subscription(["user:u1"])}),
                ("quiet", {"a": Subscription(["user:u1"])}),
                ("from the start", {"a": Subscription(["event:agent:**"], "start")}),
            )
        ]
        following = [tasks.create_task(follower.run()) for follower in followers]
        async with asyncio.timeout(10):
            while "mesh_subscriptions 4.0" not in (await mesh.get("/metrics"))[1]:
                pass
        leader = await nats_cluster.stream_leader()
        burst = tasks.create_task(publish_burst(events.jetstream))
        await asyncio.wait({burst}, timeout=0.4)
        leader.kill()
        await leader.wait()
        await burst
        await nats_cluster.stream_leader(other_than=leader)
        await events.publish(user="u1")
        log = await read_whole_log(nats_cluster.url("admin"))
        await wait_for_all(followers, log)
        for task in following:
            task.cancel()
    compare(followers, journal, log)


async def publish_burst(jetstream: JetStreamContext, count: int = 5_000) -> None:
    """Publish as fast as it goes; what isn't acknowledged is given up."""
    pending = []
    for number in range(count):
        event = make_event(user=f"u{number % 50}")
        headers = {"Nats-Msg-Id": event.id}
        body = encode_body(event)
        pending.append(await jetstream.publish_async(event.subject, body, headers=headers))
    done, given_up = await asyncio.wait(pending, timeout=5)
    for future in (*done, *given_up):
        future.cancel() or future.exception()
