"""One connection: answers in order, loss, and no reconnecting of nats-py's own."""

from __future__ import annotations

import asyncio
import socket

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.publishers.nats_link import NatsLink
from jarvis_mesh.publishers.window import Pending
from jarvis_mesh.schema import new_id
from tests.support.waiting import wait_until

AGENT = "agent-service"


def make_pending(n: int) -> Pending:
    ack = asyncio.get_running_loop().create_future()
    subject = f"agent.created._.{AGENT}.a{n}._._"
    return Pending(new_id(n), subject, b"x", 100.0, ack, token=f"t{n}")


async def test_each_event_has_its_answer(nats_server: NatsServer) -> None:
    answers: list[tuple[str, bytes, bytes]] = []
    link = NatsLink(
        nats_server.url(AGENT), AGENT, lambda *answer: answers.append(answer), lambda _: None
    )
    await link.open(5.0)
    for n in range(3):
        await link.send(make_pending(n))
    await wait_until(lambda: len(answers) == 3, "three answers")
    await link.close()
    assert [token for token, _, _ in answers] == ["t0", "t1", "t2"]
    assert all(headers == b"" and b'"seq"' in body for _, headers, body in answers)


async def test_a_forbidden_subject_is_told_in_lower_case(nats_server: NatsServer) -> None:
    forbidden: list[str] = []
    link = NatsLink(nats_server.url(AGENT), AGENT, lambda *_: None, forbidden.append)
    await link.open(5.0)
    pending = make_pending(1)
    pending.subject = "agent.created._.Other.a._._"
    await link.send(pending)
    await wait_until(lambda: forbidden, "the refusal")
    await link.close()
    assert forbidden == ["agent.created._.other.a._._"]


async def test_a_lost_connection_stays_lost(nats_server: NatsServer) -> None:
    """What nats-py still holds may be older than the duplicate window: it must not be sent."""
    link = NatsLink(nats_server.url(AGENT), AGENT, lambda *_: None, lambda _: None)
    await link.open(5.0)
    nats_server.kill()
    await nats_server.wait()
    async with asyncio.timeout(5):
        await link.lost.wait()
    await nats_server.start()
    assert not link.is_up
    await link.close()
    await link.close()
    assert not link.is_up


async def test_servers_that_say_nothing_leave_time_for_one_that_does(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a node of a cluster does that is frozen: the system takes connections for it."""
    monkeypatch.setattr("nats.aio.client.shuffle", lambda servers: None)  # the live one last
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        silent = [f"nats://{AGENT}:x@127.0.0.1:{each.getsockname()[1]}" for each in (one, two)]
        url = ",".join([*silent, nats_server.url(AGENT)])
        link = NatsLink(url, AGENT, lambda *_: None, lambda _: None)
        await link.open(1.5)
        assert link.is_up
        await link.close()


async def test_one_that_is_cancelled_while_it_opens_goes_without_a_word(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        link = NatsLink(nats_server.url(AGENT), AGENT, lambda *_: None, lambda _: None)
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(link.open(5.0))
            async with asyncio.timeout(5):
                while not link._client._pongs:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0)  # noqa: TID251 - polls at each turn of the loop
            opening.cancel()
    assert "encountered error" not in caplog.text
