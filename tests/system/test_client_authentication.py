"""The Python SDK with tokens, against a real gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.client import Mesh
from jarvis_mesh.client.formats import FormatName
from jarvis_mesh.schema.errors import (
    ForbiddenError,
    UnauthorizedError,
    UnavailableError,
)
from tests.support.gateway import RunningGateway, gateway
from tests.support.mesh_command import announce, environment, mesh
from tests.support.publishing import TestPublisher, make_event
from tests.support.responder import serving
from tests.support.tokens import SECRET, token_for

STATUS = ("agent:status", {"agentId": "a7", "status": "idle"})


@pytest.fixture
async def secured(nats_server: NatsServer) -> AsyncIterator[RunningGateway]:
    """A gateway that wants tokens."""
    async with gateway(nats_server, jwt_secret=SECRET) as running:
        await running.ready()
        yield running


@pytest.mark.parametrize("form", ["json", "cbor"])
async def test_a_user_watches_publishes_and_calls_what_is_granted(
    form: FormatName, secured: RunningGateway, nats_server: NatsServer
) -> None:
    def answer(subject: str, said: dict[str, Any]) -> Any:
        return {"result": [subject, said["user"], said["data"]]}

    token = token_for("alice", publish=["user:alice"], request=["terminal.*"])
    async with (
        serving(nats_server, "terminal-service", "svc.terminal.*", answer),
        Mesh.connect(secured.url, token=token, format=form) as client,
    ):
        watching = client.subscribe("all")
        await watching.ready()
        await client.publish(*STATUS)
        event = await anext(watching)
        assert (event.metadata.user, event.source) == ("alice", "client")
        result = await client.request("terminal", "write", {"input": "x"})
        assert result == ["svc.terminal.write", "alice", {"input": "x"}]
        with pytest.raises(ForbiddenError):
            await client.request("agent", "start")
        with pytest.raises(ForbiddenError):
            await anext(client.subscribe("user:bob"))
    async with Mesh.connect(secured.url, token=token, format=form) as client:
        with pytest.raises(UnavailableError):
            await client.request("terminal", "write")


async def test_without_a_token_one_is_asked_for(secured: RunningGateway) -> None:
    with pytest.raises(UnauthorizedError, match="token"):
        async with Mesh.connect(secured.url):
            pass


async def test_tokens_are_renewed_and_no_event_is_missed(
    secured: RunningGateway, events: TestPublisher
) -> None:
    given: list[float] = []

    async def get_token() -> str:
        given.append(time.time())
        return token_for("alice", expires_in=2)

    async with Mesh.connect(secured.url, get_token=get_token) as client:
        notices: list[object] = []
        client.on("connection", notices.append)
        watching = client.subscribe("all")
        await watching.ready()
        sent = []
        until = time.time() + 3
        while time.time() < until:
            sent.append(await events.publish(make_event(user="alice")))
            await anext(watching)
        assert watching.cursor is not None
        assert watching.cursor.endswith(f":{sent[-1]}")
    assert len(given) >= 2


async def test_a_revoked_token_ends_the_mesh(
    secured: RunningGateway, nats_server: NatsServer, tmp_path: Path
) -> None:
    announce(nats_server, tmp_path)
    token = token_for("alice", iat=time.time() - 1)
    async with Mesh.connect(secured.url, token=token) as client:
        watching = client.subscribe("all")
        await watching.ready()
        assert (await mesh("revoke", "--user", "alice", env=environment(tmp_path))).code == 0
        with pytest.raises(UnauthorizedError):
            async with asyncio.timeout(10):
                await anext(watching)


async def test_the_commands_of_the_security_page_work(
    secured: RunningGateway, events: TestPublisher, tmp_path: Path
) -> None:
    """`mesh token`, then `mesh sub` with it."""
    seq = [await events.publish(make_event(user=user)) for user in ("bob", "alice")][1]
    made = await mesh("token", "--user", "alice", env=environment(tmp_path, MESH_JWT_SECRET=SECRET))
    env = environment(tmp_path, MESH_TOKEN=made.stdout.decode().strip(), MESH_URL=secured.url)
    seen = await mesh("sub", "all", "--since", "start", "--count", "1", "--json", env=env)
    assert seen.code == 0, seen.stderr
    assert f":{seq}" in seen.stdout.decode()
    refused = await mesh("sub", "all", env=environment(tmp_path, MESH_URL=secured.url))
    assert refused.code == 1
    assert "mesh token --user" in refused.stderr
