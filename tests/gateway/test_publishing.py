"""What a client is told of its event when the log doesn't confirm it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any, cast

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.inbox import Answer, Inbox
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.publishing import Publishing
from jarvis_mesh.schema import SystemClock
from jarvis_mesh.schema.errors import DeadlineError, MeshError, UnavailableError
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES, TypeRegistry
from jarvis_mesh.schema.wire import NewEvent
from tests.conftest import StartNats
from tests.support.gateway import gateway
from tests.support.plain_client import connect
from tests.support.waiting import wait_until

READY_WITHIN = 20.0
EVENT = NewEvent(type="agent:created", payload={"agentId": "a1"})


class OneAnswer:
    """An inbox in which whatever is published is answered by one error."""

    def __init__(self, **error: Any) -> None:
        self._error = error

    async def ask(self, *_args: Any, **_options: Any) -> list[Answer]:
        return [Answer(b"", json.dumps({"error": self._error, "seq": 0}).encode())]


def publishing(inbox: Inbox) -> Publishing:
    return Publishing(inbox, TypeRegistry(), SystemClock())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"code": 400, "description": "too large"}, UnavailableError),
        ({"code": 503, "description": "store closed"}, DeadlineError),
        ({"code": 409, "err_code": 10158, "description": "in process"}, DeadlineError),
    ],
)
async def test_unavailable_is_said_only_of_an_event_that_was_not_stored(
    error: dict[str, Any], told: type[MeshError]
) -> None:
    with pytest.raises(told, match=error["description"]):
        await publishing(cast("Inbox", OneAnswer(**error))).publish(EVENT, ANYBODY)


async def test_what_nats_does_not_let_the_gateway_publish_is_forbidden_at_once(
    start_nats: StartNats,
) -> None:
    families = (*BUILT_IN_FAMILIES, "deploy")
    server = await start_nats(LogSettings(families=families))
    async with (
        gateway(server, families=families) as running,
        asyncio.timeout(READY_WITHIN),
    ):
        await running.ready()
        async with connect(running.url) as client, asyncio.timeout(1):
            event = {"type": "deploy:started", "payload": {}}
            answer = await client.ask("publish", event=event)
            assert (answer["op"], answer["code"]) == ("error", "forbidden")
            assert "'gateway' may not publish on deploy.started._.client._._._" in answer["message"]
            assert not answer["retryable"]
            event = {"type": "agent:created", "payload": {"agentId": "a1"}}
            assert (await client.ask("publish", event=event))["op"] == "published"


async def test_an_event_that_was_sent_when_nats_broke_may_have_been_stored(
    nats_server: NatsServer,
) -> None:
    connection = NatsConnection()
    inbox = Inbox(connection)

    async def lost() -> None:
        inbox.fail_all()

    async def back() -> None:
        """Nothing is asked again."""

    await connection.open(
        nats_server.url("gateway"), name="test", on_disconnected=lost, on_reconnected=back
    )
    try:
        await inbox.open()
        await connection.flush()
        os.kill(nats_server.pid, signal.SIGSTOP)
        async with asyncio.TaskGroup() as tasks:
            publish = publishing(inbox).publish(EVENT, ANYBODY)
            task = tasks.create_task(_outcome(publish))
            await wait_until(lambda: inbox._open, "the question")
            nats_server.kill()
        assert isinstance(task.result(), DeadlineError)
    finally:
        await connection.close()


async def _outcome(publish: Any) -> MeshError | None:
    try:
        await publish
    except MeshError as error:
        return error
    return None
