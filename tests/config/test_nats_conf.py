"""Who may publish and subscribe to what, as a real server enforces it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
import nats.micro
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.micro.request import Request

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.nats_conf import (
    SERVICES,
    SOURCES,
    USERS,
    conf_path,
    password_variable,
    render,
)
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES
from tests.conftest import StartNats
from tests.support.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
NOBODYS = "nobodys.subject"
"""Asked for last: its refusal comes after all others."""
FORBIDDEN_TO_ALL_BUT_THE_STREAM = (
    "live.agent.created._.{source}.x._._",
    "live.x",
    "live.mesh.tick._.client.gw-1._._",
)
FORBIDDEN_TO_PUBLISHERS = (
    *FORBIDDEN_TO_ALL_BUT_THE_STREAM,
    "agent.created._.somebody-else.x._._",
    "agent.created._.client.x._._",
    "agent.created._.{source}.x._",
    "agent.created._.{source}.x._._.more",
    "agent.{source}",
    "mesh.tick._.client.gw-1._._",
    "mesh.tick._.{source}.gw-1._._",
    "svc.terminal.write",
    "svc.agent.create",
    "$SRV.PING",
    "$KV.mesh_revoked.user.alice",
    "other.created._.{source}.x._._",
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.DIRECT.GET.EVENTS",
    "_INBOX.gateway.x",
)
FORBIDDEN_TO_THE_GATEWAY = (
    *FORBIDDEN_TO_ALL_BUT_THE_STREAM,
    *(f"agent.created._.{source}.x._._" for source in SOURCES),
    "mesh.tick._.agent-service.gw-1._._",
    "mesh.other._.client.gw-1._._",
    "$JS.API.STREAM.CREATE.EVENTS",
    "$JS.API.STREAM.UPDATE.EVENTS",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.MSG.DELETE.EVENTS",
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS",
    "$JS.API.CONSUMER.CREATE.KV_mesh_revoked",
    "$JS.API.STREAM.PURGE.KV_mesh_revoked",
    "$KV.mesh_revoked.user.alice",
    "_INBOX.agent-service.x",
)


class Refusals:
    """One user's connection, and what the server refused it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def note(self, error: Exception) -> None:
        self.texts.append(str(error))

    def of(self, verb: str, subjects: Iterable[str]) -> set[str]:
        """Return which of *subjects* were refused; nats-py hands on the text in lower case."""
        return {
            subject
            for subject in subjects
            if any(f'{verb} to "{subject}"'.lower() in text.lower() for text in self.texts)
        }


@asynccontextmanager
async def connected(server: NatsServer, user: str) -> AsyncIterator[tuple[Client, Refusals]]:
    refusals = Refusals()
    client = await nats.connect(
        server.url(user), inbox_prefix=f"_INBOX.{user}", error_cb=refusals.note
    )
    try:
        yield client, refusals
    finally:
        await client.close()


async def refused_publishes(server: NatsServer, user: str, subjects: Iterable[str]) -> set[str]:
    async with connected(server, user) as (client, refusals):
        for subject in (*subjects, NOBODYS):
            await client.publish(subject, b"")
        await wait_until(lambda: refusals.of("publish", [NOBODYS]), "the last refusal")
        return refusals.of("publish", subjects)


async def refused_subscriptions(server: NatsServer, user: str, subjects: Iterable[str]) -> set[str]:
    async with connected(server, user) as (client, refusals):
        for subject in (*subjects, NOBODYS):
            await client.subscribe(subject)
        await wait_until(lambda: refusals.of("subscription", [NOBODYS]), "the last refusal")
        return refusals.of("subscription", subjects)


def own_subjects(source: str) -> list[str]:
    return [
        subject
        for family in BUILT_IN_FAMILIES
        for subject in (
            f"{family}.created._.{source}._._._",
            f"{family}.task.started.{source}.x%2Ey.alice.s-42",
        )
    ]


def test_the_checked_in_file_is_what_is_written_for_the_built_in_families() -> None:
    assert (ROOT / "nats.conf").read_text("utf-8") == render(BUILT_IN_FAMILIES)


def test_the_packaged_file_is_the_checked_in_one() -> None:
    assert conf_path().read_text("utf-8") == (ROOT / "nats.conf").read_text("utf-8")


def test_every_user_has_a_password_from_the_environment_and_none_is_written_down() -> None:
    lines = [line for line in render(BUILT_IN_FAMILIES).splitlines() if "password:" in line]
    assert len(lines) == len(USERS) == 7
    for user, line in zip(USERS, lines, strict=True):
        assert line.strip() == f"user: {user}, password: ${password_variable(user)}"


def test_more_families_reach_every_user_that_publishes() -> None:
    text = render(("agent", "deploy"))
    for source in (*SOURCES, "client"):
        assert f'"deploy.*.*.{source}.*.*.*"' in text
    assert '"deploy.>"' in text
    assert '"terminal.*' not in text


@pytest.mark.parametrize("source", SOURCES)
async def test_a_publisher_speaks_under_its_own_name_alone(
    source: str, start_nats: StartNats
) -> None:
    server = await start_nats(None)
    forbidden = [subject.format(source=source) for subject in FORBIDDEN_TO_PUBLISHERS]
    assert await refused_publishes(server, source, own_subjects(source)) == set()
    assert await refused_publishes(server, source, forbidden) == set(forbidden)


@pytest.mark.parametrize("source", SOURCES)
async def test_a_publisher_hears_its_answers_and_its_service_s_requests_alone(
    source: str, start_nats: StartNats
) -> None:
    server = await start_nats(None)
    service = SERVICES[source]
    other = "agent" if service != "agent" else "model"
    own = [
        f"_INBOX.{source}.x",
        f"svc.{service}.*",
        f"svc.{service}.create",
        *("$SRV.PING", f"$SRV.INFO.{service}", f"$SRV.STATS.{service}.an-id"),
    ]
    others = [
        *(">", "agent.>", "live.>", "_INBOX.>", "_INBOX.gateway.x", "$JS.>", "$KV.>"),
        *("svc.>", "svc.*.*", f"svc.{other}.create", f"svc.{other}.*"),
        *("$SRV.>", "$SRV.PING.*", f"$SRV.PING.{other}"),
    ]
    assert await refused_subscriptions(server, source, own) == set()
    assert await refused_subscriptions(server, source, others) == set(others)


async def test_services_of_nats_serve_requests_together_and_are_found(
    nats_server: NatsServer,
) -> None:
    served: list[str] = []
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            client, refusals = await stack.enter_async_context(
                connected(nats_server, "agent-service")
            )
            service = await nats.micro.add_service(client, name="agent", version="1.0.0")
            stack.push_async_callback(service.stop)

            async def serve(request: Request, name: str = name) -> None:
                served.append(name)
                await request.respond(b"done")

            await service.add_group(name="svc.agent").add_endpoint(name="create", handler=serve)
            await client.flush()
            assert refusals.texts == []
        gateway, _ = await stack.enter_async_context(connected(nats_server, "gateway"))
        for _ in range(40):
            assert (await gateway.request("svc.agent.create", b"")).data == b"done"
        admin, _ = await stack.enter_async_context(connected(nats_server, "admin"))
        for question in ("$SRV.PING", "$SRV.INFO.agent", f"$SRV.STATS.agent.{service.id}"):
            answer = json.loads((await admin.request(question, b"")).data)
            assert answer["name"] == "agent"
    assert len(served) == 40
    assert set(served) == {"one", "two"}


async def test_a_service_answers_a_request_once_and_nothing_that_it_was_not_asked(
    nats_server: NatsServer,
) -> None:
    reply = "_INBOX.gateway.one"
    async with (
        connected(nats_server, "gateway") as (gateway, _),
        connected(nats_server, "agent-service") as (service, refusals),
    ):
        asked: asyncio.Queue[Msg] = asyncio.Queue()
        answers: asyncio.Queue[Msg] = asyncio.Queue()
        await service.subscribe("svc.agent.*", queue="q", cb=asked.put)
        await gateway.subscribe(reply, cb=answers.put)
        await service.publish(reply, b"too early")
        await wait_until(lambda: refusals.of("publish", [reply]), "a refusal")
        refusals.texts.clear()
        await gateway.publish("svc.agent.create", b"", reply=reply)
        await asyncio.wait_for(asked.get(), 10)
        await service.publish("_INBOX.gateway.two", b"another's")
        await service.publish(reply, b"first")
        await service.publish(reply, b"second")
        await wait_until(lambda: refusals.of("publish", [reply]), "a refusal")
        await gateway.flush()
        assert refusals.of("publish", ["_INBOX.gateway.two"])
        assert [answers.get_nowait().data for _ in range(answers.qsize())] == [b"first"]


async def test_no_publisher_can_ask_for_an_answer_on_a_subject_that_another_chooses(
    nats_server: NatsServer,
) -> None:
    """Who gets a request may publish where its reply subject says; a deny wouldn't hold it back.

    So nobody but `gateway` and `admin` may make a request come with a reply subject. What others
    can do is let the server's acknowledgement of an event go to a service: it has none.
    """
    steered = ("svc.agent.create", "$SRV.PING", "_INBOX.agent-service.x")
    async with (
        connected(nats_server, "terminal-service") as (attacker, _),
        connected(nats_server, "agent-service") as (service, refusals),
    ):
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        for subject in steered:
            await service.subscribe(subject, cb=heard.put)
        await service.flush()
        own = "agent.created._.terminal-service.x._._"
        headers = {"Nats-Reply": "live.x", "Reply": "live.x"}
        for subject in steered:
            await attacker.publish(own, b"", reply=subject, headers=headers)
        for _ in steered:
            message = await asyncio.wait_for(heard.get(), 10)
            assert (message.reply, message.headers) == ("", None)
            assert json.loads(message.data)["stream"] == "EVENTS"
        assert await refused_publishes(nats_server, "agent-service", ["live.x"]) == {"live.x"}
        assert refusals.texts == []


async def test_the_gateway_speaks_for_clients_and_ticks_alone(start_nats: StartNats) -> None:
    server = await start_nats(None)
    own = [
        *own_subjects("client"),
        "mesh.tick._.client.gw-1._._",
        "$JS.API.STREAM.INFO.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.API.STREAM.INFO.KV_mesh_revoked",
        "$JS.API.DIRECT.GET.KV_mesh_revoked",
        "svc.terminal.write",
    ]
    forbidden = [each.format(source="client") for each in FORBIDDEN_TO_THE_GATEWAY]
    assert await refused_publishes(server, "gateway", own) == set()
    assert await refused_publishes(server, "gateway", forbidden) == set(forbidden)


async def test_the_gateway_hears_the_live_feed_its_answers_and_new_leaders_alone(
    start_nats: StartNats,
) -> None:
    server = await start_nats(None)
    own = [
        *("live.>", "live.agent.*.*.*.*.alice.*", "_INBOX.gateway.x.>"),
        "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.EVENTS",
    ]
    others = [">", "agent.>", "_INBOX.>", "_INBOX.agent-service.x", "svc.>", "$JS.>", "$SYS.>"]
    assert await refused_subscriptions(server, "gateway", own) == set()
    assert await refused_subscriptions(server, "gateway", others) == set(others)


@pytest.mark.parametrize("user", USERS)
async def test_nobody_but_the_stream_writes_the_live_feed(
    user: str, nats_server: NatsServer
) -> None:
    """Not even `admin`. What does arrive there was stored first."""
    forbidden = [each.format(source=user) for each in FORBIDDEN_TO_ALL_BUT_THE_STREAM]
    async with connected(nats_server, "gateway") as (gateway, _):
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        await gateway.subscribe("live.>", cb=heard.put)
        await gateway.flush()
        assert await refused_publishes(nats_server, user, forbidden) == set(forbidden)
        async with connected(nats_server, "admin") as (admin, _):
            await admin.publish("agent.created._.s._._._", b"")
        copy = await asyncio.wait_for(heard.get(), 10)
        assert copy.subject == "live.agent.created._.s._._._"
        assert copy.headers
        assert copy.headers["Nats-Stream"] == "EVENTS"


async def test_a_wrong_password_is_refused(start_nats: StartNats) -> None:
    server = await start_nats(None)
    url = server.url("admin").replace("admin:", "admin:x")
    client = Client()
    try:
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await client.connect(url, allow_reconnect=False, error_cb=Refusals().note)
    finally:
        await client.close()  # nats-py 2.16 leaves the socket of a refused connect open
