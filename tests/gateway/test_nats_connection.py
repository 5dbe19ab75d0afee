"""What the live feed rests on: wire order over all subscriptions, and a reader that goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats
import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.gateway.nats_connection import NatsConnection
from tests.support.cluster import Cluster
from tests.support.publishing import make_event, publisher
from tests.support.waiting import wait_until


class Breaks:
    """Counts what the connection reports."""

    def __init__(self) -> None:
        self.disconnects = 0
        self.reconnects = 0

    async def on_disconnected(self) -> None:
        self.disconnects += 1

    async def on_reconnected(self) -> None:
        self.reconnects += 1


@pytest.fixture
def breaks() -> Breaks:
    return Breaks()


@pytest.fixture
async def connection(nats_server: NatsServer, breaks: Breaks) -> AsyncIterator[NatsConnection]:
    opened = NatsConnection()
    await opened.open(
        nats_server.url("gateway"),
        name="test",
        on_disconnected=breaks.on_disconnected,
        on_reconnected=breaks.on_reconnected,
    )
    yield opened
    await opened.close()


async def test_messages_of_overlapping_subscriptions_come_in_wire_order(
    nats_server: NatsServer, connection: NatsConnection
) -> None:
    seen: list[int] = []

    def handle(_subject: bytes, headers: bytes, _body: bytes) -> None:
        seen.append(int(headers.partition(b"Nats-Sequence: ")[2].partition(b"\r\n")[0]))

    for subject in ("live.>", "live.agent.>", "live.*.*.*.*.e1.*.*"):
        await connection.listen(subject, handle)
    await connection.flush()
    async with publisher(nats_server) as events:
        for number in range(500):
            await events.publish(make_event(entity=f"e{number % 3}"))
    await wait_until(lambda: len(seen) == 500 * 2 + 167, f"all copies, not {len(seen)}")
    assert seen == sorted(seen)


async def test_subscriptions_without_handler_are_nats_pys_own(
    nats_server: NatsServer, connection: NatsConnection
) -> None:
    subscription = await connection.subscribe("live.agent.>")
    async with publisher(nats_server) as events:
        await events.publish()
    message = await subscription.next_msg(timeout=5)
    assert message.headers is not None
    assert message.headers["Nats-Stream"] == "EVENTS"


async def test_an_unlistened_handler_is_never_called_again(
    nats_server: NatsServer, connection: NatsConnection
) -> None:
    unwanted: list[bytes] = []
    wanted: list[bytes] = []
    first = await connection.listen("live.>", lambda subject, _h, _b: unwanted.append(subject))
    await connection.listen("live.>", lambda subject, _h, _b: wanted.append(subject))
    await connection.unlisten(first)
    async with publisher(nats_server) as events:
        await events.publish()
    await wait_until(lambda: wanted, "the copy")
    assert unwanted == []


async def test_a_handler_that_fails_costs_a_reconnect_and_nothing_else(
    nats_server: NatsServer, connection: NatsConnection, breaks: Breaks
) -> None:
    seen: list[bytes] = []

    def handle(subject: bytes, _headers: bytes, _body: bytes) -> None:
        seen.append(subject)
        if len(seen) == 1:
            raise RuntimeError("a bug of ours")

    await connection.listen("live.>", handle)
    await connection.flush()
    async with publisher(nats_server) as events:
        await events.publish()
        await wait_until(lambda: breaks.reconnects, "the reconnect")
        await events.publish()
    await wait_until(lambda: len(seen) == 2, "the second copy")


async def test_it_reconnects_by_itself_and_renews_its_subscriptions(
    nats_server: NatsServer, connection: NatsConnection, breaks: Breaks
) -> None:
    seen: list[bytes] = []
    await connection.listen("live.>", lambda subject, _h, _b: seen.append(subject))
    nats_server.kill()
    await nats_server.wait()
    await nats_server.start()
    await wait_until(lambda: breaks.reconnects, "the reconnect")
    assert breaks.disconnects == 1
    await connection.flush()
    async with publisher(nats_server) as events:
        await events.publish()
    await wait_until(lambda: seen, "the copy")


async def test_it_goes_to_another_node_of_a_cluster_that_its_url_does_not_name(
    nats_cluster: Cluster, breaks: Breaks
) -> None:
    connection, first = NatsConnection(), nats_cluster.nodes[0]
    try:
        await connection.open(
            first.url("gateway"),
            name="test",
            on_disconnected=breaks.on_disconnected,
            on_reconnected=breaks.on_reconnected,
        )
        await wait_until(lambda: connection.discovered_servers, "news of the other nodes")
        first.kill()
        await first.wait()
        await wait_until(lambda: breaks.reconnects, "a connection to another node")
    finally:
        await connection.close()


def test_the_private_method_that_is_overridden_is_still_there() -> None:
    assert "_process_msg" in vars(nats.aio.client.Client)
