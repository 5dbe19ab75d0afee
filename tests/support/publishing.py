"""Publishing events for tests, as `admin`, without the publishers' code."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js import JetStreamContext

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import Event, Metadata, encode_body, new_id
from tests.support.cluster import Cluster


def make_event(event_type: str = "agent:created", /, **fields: Any) -> Event:
    """Return a valid event; *fields* replace what it has by default."""
    metadata = {
        key: fields.pop(key) for key in ("user", "session", "entity", "priority") if key in fields
    }
    now = time.time_ns() // 1_000_000
    defaults: dict[str, Any] = {
        "id": new_id(now),
        "type": event_type,
        "source": "tests",
        "timestamp": now,
        "payload": {"agentId": "a1"},
        "metadata": Metadata(**metadata),
    }
    return Event(**(defaults | fields))


class TestPublisher:
    """Publishes events one by one, each acknowledged."""

    __test__ = False

    def __init__(self, jetstream: JetStreamContext) -> None:
        self.jetstream = jetstream

    async def publish(self, event: Event | None = None, **fields: Any) -> int:
        """Store an event and return its sequence."""
        event = event or make_event(**fields)
        ack = await self.jetstream.publish(
            event.subject, encode_body(event), headers={"Nats-Msg-Id": event.id}
        )
        return ack.seq

    async def publish_many(self, count: int, **fields: Any) -> list[int]:
        """Store *count* events whose payload counts them; return their sequences."""
        return [
            await self.publish(make_event(payload={"agentId": "a1", "n": n}, **fields))
            for n in range(count)
        ]


@asynccontextmanager
async def publisher(server: NatsServer | Cluster) -> AsyncIterator[TestPublisher]:
    """Connect as `admin`, who may publish anything."""
    # Soon again, but not to a cluster: nats-py (2.16) forgets the socket of a connection to a
    # server that dies before its first word.
    soon = {"reconnect_time_wait": 0.05} if isinstance(server, NatsServer) else {}
    connection = await nats.connect(
        server.url("admin").split(","), max_reconnect_attempts=-1, **soon
    )
    try:
        yield TestPublisher(connection.jetstream())
    finally:
        await connection.close()
