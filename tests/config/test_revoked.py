"""The bucket of revoked tokens, as the server keeps it and as NATS's own tools see it."""

from __future__ import annotations

import json

import nats
import pytest
from nats.js.errors import APIError, KeyNotFoundError

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.log import differs
from jarvis_mesh.config.revoked import BUCKET, MAX_VALUE_BYTES, STREAM, bucket_config


async def test_clients_of_nats_read_and_write_it_as_a_bucket(nats_server: NatsServer) -> None:
    admin = await nats.connect(nats_server.url("admin"))
    try:
        bucket = await admin.jetstream().key_value(BUCKET)
        await bucket.put("user.alice", b"1")
        await bucket.put("user.alice", b"2")
        assert (await bucket.get("user.alice")).value == b"2"
        assert (await bucket.status()).history == 1
        await bucket.purge("user.alice")
        with pytest.raises(KeyNotFoundError):
            await bucket.get("user.alice")
        with pytest.raises(APIError, match="exceeds"):
            await bucket.put("user.alice", b"x" * (MAX_VALUE_BYTES + 1))
    finally:
        await admin.close()


async def test_what_the_server_keeps_is_what_was_asked_for(nats_server: NatsServer) -> None:
    admin = await nats.connect(nats_server.url("admin"))
    try:
        reply = await admin.request(f"$JS.API.STREAM.INFO.{STREAM}", b"")
    finally:
        await admin.close()
    assert not differs(json.loads(reply.data)["config"], bucket_config(1))


def test_it_has_the_replicas_of_the_log() -> None:
    assert bucket_config(3)["num_replicas"] == 3
