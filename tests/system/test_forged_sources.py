"""Every publisher's user, tried against every source that isn't its own: all refused, at once."""

from __future__ import annotations

import asyncio

import nats
import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.nats_conf import SOURCES
from jarvis_mesh.publishers import EventPublisher
from jarvis_mesh.schema.errors import ForbiddenError
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES, TypeRegistry
from tests.support.log_reading import read_log
from tests.support.up import run_mesh

NOT_USERS = ("client", "cli", "admin", "gateway", "Agent-Service", "agent-service2", "a.b *>%")
"""Sources that no publisher's user has, but for those of the others."""
AT_ONCE = 1.0
"""Seconds within which a refusal must come; without it an event is tried for 100."""
COMMAND_WITHIN = 8.0
"""Seconds for a whole `mesh pub`, which would try for 10."""
TYPES = TypeRegistry(allow_unregistered=True)


def others(user: str) -> list[str]:
    return [source for source in (*SOURCES, *NOT_USERS) if source != user]


@pytest.mark.parametrize("user", SOURCES)
async def test_every_other_source_is_refused_at_once_in_every_family(
    user: str, nats_server: NatsServer
) -> None:
    for source in others(user):
        async with EventPublisher(source, nats_server.url(user), types=TYPES) as publisher:
            for family in BUILT_IN_FAMILIES:
                with pytest.raises(ForbiddenError) as refusal:
                    async with asyncio.timeout(AT_ONCE):
                        await publisher.publish(f"{family}:x:y", {}, user="u", entity="E")
                assert f"NATS user {user!r} may not publish as source {source!r}" in str(
                    refusal.value
                )
            assert publisher.lost == len(BUILT_IN_FAMILIES)
    async with EventPublisher(user, nats_server.url(user), types=TYPES) as own:
        for family in BUILT_IN_FAMILIES:
            await own.publish(f"{family}:x:y", {}, user="u", entity="E")
    assert {logged.event.source for logged in await read_log(nats_server)} == {user}


async def test_among_events_of_its_own_many_at_once_each_forged_one_is_told(
    nats_server: NatsServer,
) -> None:
    user = "agent-service"
    async with (
        EventPublisher(user, nats_server.url(user), types=TYPES) as own,
        EventPublisher("client", nats_server.url(user), types=TYPES) as forged,
    ):
        async with asyncio.timeout(AT_ONCE):
            told = [forged.send_nowait("agent:x", {}, entity=f"e{n}") for n in range(50)]
            stored = [own.send_nowait("agent:x", {}, entity=f"e{n}") for n in range(50)]
            results = await asyncio.gather(*told, return_exceptions=True)
        assert all(isinstance(each, ForbiddenError) for each in results)
        assert len({(await each).seq for each in stored}) == 50


@pytest.mark.parametrize("user", SOURCES)
async def test_a_forged_live_copy_is_refused_at_once(user: str, nats_server: NatsServer) -> None:
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        refused.put_nowait(str(error))

    connection = await nats.connect(
        nats_server.url(user), inbox_prefix=f"_INBOX.{user}", error_cb=note
    )
    headers = {"Nats-Stream": "EVENTS", "Nats-Subject": "agent.x._.s._._._", "Nats-Sequence": "1"}
    try:
        for source in (user, "client"):
            subject = f"live.agent.x._.{source}._._._"
            await connection.publish(subject, b"", headers=headers)
            async with asyncio.timeout(AT_ONCE):
                assert f'publish to "{subject}"' in await refused.get()
    finally:
        await connection.close()


@pytest.mark.parametrize("user", SOURCES)
async def test_mesh_pub_says_so_in_one_line(user: str, nats_server: NatsServer) -> None:
    for source in (SOURCES[SOURCES.index(user) - 1], "cli"):
        async with asyncio.timeout(COMMAND_WITHIN):
            code, stdout, stderr = await run_mesh(
                *("pub", "agent:created", '{"agentId": "a1"}'),
                *("--source", source, "--nats", nats_server.url(user)),
            )
        assert (code, stdout) == (1, "")
        told = [line for line in stderr.splitlines() if line.startswith("mesh: ")]
        assert len(told) == 1
        assert f"the NATS user {user!r} may not publish as source {source!r}" in told[0]
    assert await read_log(nats_server) == []
