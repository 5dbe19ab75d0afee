"""Revocations as they are read from a real bucket, whatever is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.kv import KeyValue

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.revoked import BUCKET, SUBJECT_PREFIX, Revocation
from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.inbox import Inbox
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.revocations import Revocations
from jarvis_mesh.schema.clock import SystemClock
from jarvis_mesh.schema.errors import UnauthorizedError, UnavailableError
from tests.conftest import StartNats
from tests.support.waiting import wait_until


def granted(user: str, issued: float = 0.0, token_id: str | None = None) -> Grants:
    return Grants(user=user, subscribe=(), issued=issued, token_id=token_id)


async def nothing() -> None:
    pass


@asynccontextmanager
async def followed(server: NatsServer) -> AsyncIterator[tuple[Revocations, list[int]]]:
    """Yield revocations that follow the bucket, and a list that grows with each change."""
    connection, changes = NatsConnection(), []
    inbox = Inbox(connection)
    revocations = Revocations(inbox, lambda: changes.append(1), SystemClock())
    with pytest.raises(UnavailableError):
        revocations.check(granted("alice"))
    url = server.url("gateway")
    await connection.open(url, name="test", on_disconnected=nothing, on_reconnected=nothing)
    await inbox.open()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(revocations.run())
        await wait_until(lambda: revocations.are_known)
        yield revocations, changes
        running.cancel()
    await connection.shut()


@asynccontextmanager
async def bucket(server: NatsServer) -> AsyncIterator[KeyValue]:
    """Yield the bucket as a tool for KV has it."""
    client = await nats.connect(server.url("admin"))
    try:
        yield await client.jetstream().key_value(BUCKET)
    finally:
        await client.close()


async def revoke(kv: KeyValue, revocation: Revocation) -> None:
    await kv.put(revocation.subject.removeprefix(SUBJECT_PREFIX), revocation.encode())


async def test_what_is_written_counts_and_what_is_deleted_no_more(nats_server: NatsServer) -> None:
    async with followed(nats_server) as (revocations, changes), bucket(nats_server) as kv:
        assert not changes
        by_user, by_id = Revocation(user="a.b *>%", before=100.5), Revocation(id="t/1 é")
        await revoke(kv, by_user)
        await revoke(kv, by_id)
        await wait_until(lambda: revocations.cover(granted("x", 0, "t/1 é")), "the revocation")
        assert changes
        assert revocations.cover(granted("a.b *>%", 100.5))
        assert not revocations.cover(granted("a.b *>%", 100.6))
        assert not revocations.cover(granted("x", 0, "t1"))
        with pytest.raises(UnauthorizedError, match="revoked"):
            revocations.check(granted("a.b *>%"))
        await kv.delete(by_user.subject.removeprefix(SUBJECT_PREFIX))
        await wait_until(lambda: not revocations.cover(granted("a.b *>%")), "the deletion")
        assert revocations.cover(granted("x", 0, "t/1 é"))


async def test_the_last_revocation_of_a_user_counts(nats_server: NatsServer) -> None:
    async with followed(nats_server) as (revocations, _), bucket(nats_server) as kv:
        for before in (10.0, 20.0):
            await revoke(kv, Revocation(user="alice", before=before))
        await wait_until(lambda: revocations.cover(granted("alice", 20.0)), "the second")
        assert not revocations.cover(granted("alice", 21.0))


async def test_more_than_one_answer_holds_are_read(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as kv:
        async with asyncio.TaskGroup() as tasks:
            for number in range(600):
                tasks.create_task(revoke(kv, Revocation(id=f"t{number}")))
        async with followed(nats_server) as (revocations, _):
            assert all(revocations.cover(granted("x", 0, f"t{n}")) for n in range(600))


async def test_nonsense_in_the_bucket_is_passed_over(nats_server: NatsServer) -> None:
    async with followed(nats_server) as (revocations, _), bucket(nats_server) as kv:
        await kv.put("user.x", b"nonsense")
        await kv.put("id.x", b"[]")
        await revoke(kv, Revocation(id="t1"))
        await wait_until(lambda: revocations.cover(granted("x", 0, "t1")), "the one after it")


async def test_a_bucket_that_is_made_anew_is_read_anew(nats_server: NatsServer) -> None:
    async with followed(nats_server) as (revocations, _):
        async with bucket(nats_server) as kv:
            for token_id in ("t1", "t2"):
                await revoke(kv, Revocation(id=token_id))
        await wait_until(lambda: revocations.cover(granted("x", 0, "t2")), "the old one")
        client = await nats.connect(nats_server.url("admin"))
        await client.jetstream().delete_key_value(BUCKET)
        await client.close()
        await wait_until(lambda: not revocations.cover(granted("x", 0, "t2")), "its end")
        await set_up_log(nats_server.url("admin"), LogSettings())
        async with bucket(nats_server) as kv:
            await revoke(kv, Revocation(id="t3"))
        await wait_until(lambda: revocations.cover(granted("x", 0, "t3")), "the new one")
        assert not revocations.cover(granted("x", 0, "t1"))


async def test_without_a_bucket_nothing_is_revoked(start_nats: StartNats) -> None:
    async with followed(await start_nats(None)) as (revocations, _):
        revocations.check(granted("alice"))


async def test_while_nats_is_away_what_was_known_counts(nats_server: NatsServer) -> None:
    async with followed(nats_server) as (revocations, _):
        async with bucket(nats_server) as kv:
            await revoke(kv, Revocation(id="t1"))
        await wait_until(lambda: revocations.cover(granted("x", 0, "t1")), "the revocation")
        await nats_server.stop()
        assert revocations.cover(granted("x", 0, "t1"))
        await nats_server.start()
        async with bucket(nats_server) as kv:
            await revoke(kv, Revocation(id="t2"))
        await wait_until(lambda: revocations.cover(granted("x", 0, "t2")), "a later one")
