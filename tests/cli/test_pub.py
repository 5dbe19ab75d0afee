"""`mesh pub`, as a shell runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.log_reading import read_log
from tests.support.mesh_command import announce, environment, mesh


@pytest.fixture
def env(nats_server: NatsServer, tmp_path: Path) -> dict[str, str]:
    announce(nats_server, tmp_path)
    return environment(tmp_path)


async def test_an_event_is_published_and_its_id_and_sequence_printed(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    options = ("--user", "alice", "--session", "s-1", "--priority", "high")
    ended = await mesh("pub", "agent:created", '{"agentId": "a1"}', *options, env=env)
    assert (ended.code, ended.stderr) == (0, "")
    [logged] = await read_log(nats_server)
    assert ended.stdout.decode() == f"{logged.event.id} 1\n"
    assert logged.subject == "agent.created._.cli.a1.alice.s-1"
    assert logged.event.metadata.priority == "high"


async def test_the_payload_can_come_from_standard_input(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    payload = '{"agentId": "a1", "message": "grüße"}'.encode()
    assert (await mesh("pub", "agent:message", "-", env=env, stdin=payload)).code == 0
    [logged] = await read_log(nats_server)
    assert logged.event.payload["message"] == "grüße"


async def test_source_entity_and_types_of_ones_own_are_taken(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    arguments = ("agent:thought", "--source", "me", "--entity", "x", "--nats")
    url = nats_server.url("admin")
    assert (await mesh("pub", *arguments, url, env=env)).code == 0
    [logged] = await read_log(nats_server)
    assert logged.subject == "agent.thought._.me.x._._"
    assert logged.event.payload == {}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("agent:created", "{}"), "agentId"),
        (("agent:created", "{'agentId'}"), "isn't JSON"),
        (("agent:created", '{"agentId": NaN}'), "isn't JSON"),
        (("deploy:started", "{}"), "MESH_FAMILIES"),
        (("Agent:Created", "{}"), "no event type"),
        (("agent:created", '{"agentId": "a"}', "--user", "u" * 129), "129 bytes"),
        (
            ("agent:created", '{"agentId": "a"}', "--nats", "nats://127.0.0.1:9"),
            "; start `mesh up`",
        ),
        (
            ("agent:created", '{"agentId": "a"}', "--nats", "http://h"),
            "nats://user:password@host:4222",
        ),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    env: dict[str, str], arguments: tuple[str, ...], complaint: str
) -> None:
    ended = await mesh("pub", *arguments, env=env)
    assert ended.code == 1
    assert complaint in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == b""


async def test_without_a_mesh_it_says_how_to_start_one(tmp_path: Path) -> None:
    ended = await mesh("pub", "agent:created", '{"agentId": "a"}', env=environment(tmp_path))
    assert ended.code == 1
    assert "mesh up" in ended.stderr
