"""Each method publishes its type, with the payload that the type requires."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.publishers import AgentPublisher, SystemPublisher, TerminalPublisher
from jarvis_mesh.schema.errors import EventError
from tests.support.log_reading import read_log


async def what_is_logged(server: NatsServer) -> list[tuple[str, dict[str, Any]]]:
    return [(item.event.type, item.event.payload) for item in await read_log(server)]


async def test_every_agent_method_publishes_its_type(nats_server: NatsServer) -> None:
    async with AgentPublisher.connect(nats_server.url("agent-service")) as agents:
        await agents.created("a", name="Ada")
        await agents.updated("a", model="m")
        await agents.status("a", "idle")
        await agents.task_started("a", "t", "mend it")
        await agents.task_completed("a", "t", result={"files": 2})
        await agents.task_failed("a", "t", "no luck")
        await agents.message("a", "hello")
        await agents.deleted("a")
    assert await what_is_logged(nats_server) == [
        ("agent:created", {"agentId": "a", "name": "Ada"}),
        ("agent:updated", {"agentId": "a", "model": "m"}),
        ("agent:status", {"agentId": "a", "status": "idle"}),
        ("agent:task:started", {"agentId": "a", "taskId": "t", "task": "mend it"}),
        ("agent:task:completed", {"agentId": "a", "taskId": "t", "result": {"files": 2}}),
        ("agent:task:failed", {"agentId": "a", "taskId": "t", "error": "no luck"}),
        ("agent:message", {"agentId": "a", "message": "hello"}),
        ("agent:deleted", {"agentId": "a"}),
    ]


async def test_every_terminal_method_publishes_its_type(nats_server: NatsServer) -> None:
    async with TerminalPublisher.connect(nats_server.url("terminal-service")) as terminals:
        await terminals.created("t", columns=80, rows=24)
        await terminals.input("t", "ls\n")
        await terminals.output("t", "x\r\n", data="eA0K")
        await terminals.error("t", "lost")
        await terminals.closed("t", exit_code=0)
        await terminals.closed("t", signal="SIGKILL")
    assert await what_is_logged(nats_server) == [
        ("terminal:created", {"terminalId": "t", "columns": 80, "rows": 24}),
        ("terminal:input", {"terminalId": "t", "input": "ls\n"}),
        ("terminal:output", {"terminalId": "t", "output": "x\r\n", "data": "eA0K"}),
        ("terminal:error", {"terminalId": "t", "error": "lost"}),
        ("terminal:closed", {"terminalId": "t", "exitCode": 0}),
        ("terminal:closed", {"terminalId": "t", "signal": "SIGKILL"}),
    ]


async def test_every_system_method_publishes_its_type(nats_server: NatsServer) -> None:
    async with SystemPublisher.connect(nats_server.url("system-monitor")) as system:
        await system.status("up")
        await system.metrics(cpu={"percent": 1.5})
        await system.error("the disk is full", "ENOSPC", host="other")
        await system.warning("hot")
    assert await what_is_logged(nats_server) == [
        ("system:status", {"status": "up"}),
        ("system:metrics", {"cpu": {"percent": 1.5}}),
        ("system:error", {"message": "the disk is full", "error": "ENOSPC", "host": "other"}),
        ("system:warning", {"message": "hot"}),
    ]
    entities = [item.event.metadata.entity for item in await read_log(nats_server)]
    host = socket.gethostname()
    assert entities == [host, host, "other", host]


async def test_user_and_session_become_metadata(nats_server: NatsServer) -> None:
    async with AgentPublisher.connect(nats_server.url("agent-service")) as agents:
        await agents.message("a", "hello", user="alice", session="s-1")
    [logged] = await read_log(nats_server)
    assert logged.subject == "agent.message._.agent-service.a.alice.s-1"


async def test_a_wrong_payload_leaves_as_its_own_error(nats_server: NatsServer) -> None:
    with pytest.raises(EventError, match="agentId"):
        async with AgentPublisher.connect(nats_server.url("agent-service")) as agents:
            await agents.created(7)  # type: ignore[arg-type]
