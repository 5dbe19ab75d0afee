"""The cluster that other tests break: it has to be one before that."""

from __future__ import annotations

from tests.support.cluster import Cluster, stream_info
from tests.support.publishing import publisher


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
