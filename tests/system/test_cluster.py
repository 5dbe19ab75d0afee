"""The cluster that other tests break: it has to be one before that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, cluster, stream_info
from tests.support.publishing import publisher


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A whole cluster."""
    async with cluster(tmp_path) as running:
        yield running


async def test_a_cluster_that_loses_its_stream_leader_has_another_and_is_whole_again(
    nodes: Cluster,
) -> None:
    leader = await nodes.stream_leader()
    follower = next(node for node in nodes.nodes if node is not leader)
    async with publisher(follower) as events:
        before = await events.publish()
        leader.kill()
        await leader.wait()
        second = await nodes.stream_leader(other_than=leader)
        assert second is not leader
        assert await events.publish() > before
        await leader.start()
        await nodes.whole()
    info = await stream_info(nodes.url("admin"))
    assert info["config"]["num_replicas"] == 3
    assert info["state"]["messages"] == 2
