"""Users times grants times every way of asking: nobody ever gets another's event.

What should come is decided by an oracle that knows nothing of how it is done
(tests/support/matrix.py). The cases are made at random, always the same ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.gateway import RunningGateway, gateway
from tests.support.http_client import NDJSON, SSE, HttpAnswer, ask, get_json, next_block, next_line
from tests.support.matrix import (
    USERS,
    Channel,
    Maker,
    Values,
    is_forbidden,
    may_have,
    newest_of_each,
    values_of,
)
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.tokens import SECRET, bearer, token_for

EVENTS = 150
TOKENS = 50
CASES = 45
"""Subscriptions of each token over a WebSocket."""
PAYLOADS: dict[str, dict[str, Any]] = {
    "terminal:output": {"terminalId": "t", "output": "x"},
    "model:usage": {"model": "m"},
    "workflow:step:started": {"workflowId": "w", "stepId": "s"},
}


@dataclass
class World:
    """A log whose events are known by their plain values."""

    mesh: RunningGateway
    publisher: TestPublisher
    maker: Maker
    values: dict[int, Values] = field(default_factory=dict)

    async def publish(self, count: int) -> None:
        for _ in range(count):
            event_type, source, entity, user, session = self.maker.event()
            named = {"entity": entity, "user": user, "session": session}
            event = make_event(
                event_type,
                source=source,
                payload=PAYLOADS.get(event_type, {"agentId": "a", "taskId": "t", "error": "e"}),
                **{key: value for key, value in named.items() if value is not None},
            )
            seq = await self.publisher.publish(event)
            self.values[seq] = values_of(event_type, source, entity, user, session)


@pytest.fixture
async def world(nats_server: NatsServer, events: TestPublisher) -> AsyncIterator[World]:
    async with gateway(
        nats_server,
        jwt_secret=SECRET,
        messages_per_second=1e6,
        max_replays=10_000,
        high_water_bytes=1024**2,
    ) as mesh:
        await mesh.ready()
        made = World(mesh, events, Maker(seed=5))
        await made.publish(EVENTS)
        yield made


@dataclass
class Asked:
    """One subscription, and what should come of it."""

    channels: list[Channel]
    granted: list[Channel]
    since: object
    is_conflated: bool

    @property
    def request(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"channels": [each.text for each in self.channels]}
        if self.since is not None:
            fields["since"] = self.since
        return fields | ({"conflate_ms": 50} if self.is_conflated else {})

    @property
    def is_forbidden(self) -> bool:
        return is_forbidden(self.channels, self.granted)

    def expected(self, values: dict[int, Values]) -> list[int]:
        """Return the sequences that a replay brings, ascending."""
        own = {
            seq: each for seq, each in values.items() if may_have(each, self.channels, self.granted)
        }
        match self.since:
            case None:
                return []
            case "last":
                return sorted(newest_of_each(own))
            case str(cursor) if ":" in cursor and cursor[0] != "2":
                return sorted(seq for seq in own if seq > int(cursor.partition(":")[2]))
            case _:
                return sorted(own)


class Client:
    """One token, with its subscriptions over one WebSocket."""

    def __init__(self, world: World, socket: PlainClient, granted: list[Channel]) -> None:
        self.asked: dict[str, Asked] = {}
        self.granted = granted
        self._world = world
        self._socket = socket

    async def subscribe(self, count: int, epoch: str) -> None:
        """Ask for all at once, and check each answer and replay."""
        pick = self._world.maker.random.choice
        starts = [None, "start", "start", "last", {"seconds": 3600}, "2020-01-01T00:00:00Z"]
        for number in range(count):
            since = pick([*starts, f"{epoch}:{EVENTS // 2}", f"{epoch}:0"])
            asked = Asked(
                self._world.maker.channels(), self.granted, since, pick([True] + [False] * 5)
            )
            self.asked[f"s{number}"] = asked
            await self._socket.send("subscribe", sub=f"s{number}", **asked.request)
        waiting = set(self.asked)
        while waiting:
            message = await self._socket.next()
            asked = self.asked.get(message.get("sub", ""))
            if message["op"] == "error":
                assert asked is not None, message
                assert (message["code"], asked.is_forbidden) == ("forbidden", True), (
                    message,
                    asked,
                )
                waiting.discard(message["sub"])
            elif message["op"] == "subscribed":
                assert asked is not None
                assert not asked.is_forbidden, (message, asked)
                if asked.since is None:
                    waiting.discard(message["sub"])
            elif message["op"] == "live":
                waiting.discard(message["sub"])
        for sub, asked in self.asked.items():
            assert self._socket.seqs(sub) == asked.expected(self._world.values), asked

    async def check_live(self, published: set[int]) -> None:
        """Check that of what was *published* all that is one's own has come, and nothing else."""
        live = [each for each in self.asked.values() if not each.is_conflated]
        wanted = {
            seq
            for seq in published
            if any(may_have(self._world.values[seq], each.channels, each.granted) for each in live)
        }
        await self._socket.still_lives()
        assert set(self._socket.seqs()) == wanted
        for sub, asked in self.asked.items():
            if asked.is_conflated:
                values = self._world.values
                foreign = [
                    seq
                    for seq in self._socket.seqs(sub)
                    if not may_have(values[seq], asked.channels, asked.granted)
                ]
                assert not foreign


def token(world: World, number: int) -> tuple[str, list[Channel]]:
    """Return a token of some user, and what it grants."""
    user = USERS[number % len(USERS)]
    grants = world.maker.grants(user)
    subscribe = None if grants is None else [each.text for each in grants]
    own = [Channel("", {5: user})]
    return token_for(user, subscribe=subscribe), own if grants is None else grants


async def test_over_a_websocket_exactly_what_is_ones_own_comes(world: World) -> None:
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(TOKENS):
            jwt, granted = token(world, number)
            form = ("mesh.v1.json", "mesh.v1.cbor")[number % 2]
            opening = connect(world.mesh.url, form, additional_headers=bearer(jwt))
            socket = await stack.enter_async_context(opening)
            epoch = (await socket.next())["cursor"].partition(":")[0]
            client = Client(world, socket, granted)
            await client.subscribe(CASES, epoch)
            clients.append(client)
        before = set(world.values)
        await world.publish(EVENTS)
        for client in clients:
            await client.check_live(set(world.values) - before)
    cases = sum(len(client.asked) for client in clients)
    refused = sum(each.is_forbidden for client in clients for each in client.asked.values())
    assert cases == TOKENS * CASES
    assert cases / 20 < refused < cases / 2, "cases that say something"


async def events_of(answer: HttpAnswer, accept: str) -> list[int]:
    """Return the sequences of a stream, up to where it is live."""
    seqs: list[int] = []
    while True:
        if accept == NDJSON:
            line = await next_line(answer)
            if line["op"] == "live":
                return seqs
            if line["op"] == "event":
                seqs.append(line["seq"])
        else:
            block = await next_block(answer)
            if block.get("event") == "live":
                return seqs
            if "data" in block and "event" not in block:
                seqs.append(block["data"]["seq"])


async def test_over_http_exactly_what_is_ones_own_comes(world: World) -> None:
    _, page = await get_json(world.mesh.url, channels=("all",), headers=bearer(token_for("x")))
    epoch = page["cursor"].partition(":")[0]
    refused = 0
    for number in range(1_000):
        jwt, granted = token(world, number)
        pick = world.maker.random.choice
        since = pick(["start", "last", "3600", f"{epoch}:{EVENTS // 2}"])
        asked = Asked(world.maker.channels(), granted, since, is_conflated=False)
        accept = (SSE, NDJSON, "application/json")[number % 3]
        headers, params = bearer(jwt), {"since": since}
        if accept == SSE and ":" in since:
            headers["Last-Event-ID"], params = since, {"since": "start"}
        channels = tuple(each.text for each in asked.channels)
        async with ask(
            world.mesh.url, accept, channels=channels, headers=headers, **params
        ) as answer:
            if asked.is_forbidden:
                assert answer.status == 403, asked
                refused += 1
                continue
            assert answer.status == 200, asked
            if accept == "application/json":
                found = json.loads(await answer.text())["events"]
                seqs = [each["seq"] for each in found]
            else:
                seqs = await events_of(answer, accept)
        assert seqs == asked.expected(world.values), asked
    assert refused > 20


async def test_after_a_narrower_token_only_what_it_grants_comes(world: World) -> None:
    """What was open and is covered goes on, the rest ends; nothing foreign comes in between."""
    for number in range(20):
        user = USERS[number % len(USERS)]
        wide, narrow = [Channel("all", {})], world.maker.grants(user)
        granted = [Channel("", {5: user})] if narrow is None else narrow
        texts = None if narrow is None else [each.text for each in narrow]
        headers = bearer(token_for(user, subscribe=["all"]))
        async with connect(world.mesh.url, additional_headers=headers) as socket:
            asked = {}
            for each in range(10):
                channels = world.maker.channels(2)
                asked[f"s{each}"] = Asked(channels, wide, None, is_conflated=False)
                await socket.subscribe(*(one.text for one in channels), sub=f"s{each}")
            answer = await socket.ask("auth", token=token_for(user, subscribe=texts))
            assert answer["op"] == "authenticated"
            await socket.still_lives()
            ended = {
                each["sub"] for each in socket.received if each["op"] == "error" and "sub" in each
            }
            before = set(world.values)
            await world.publish(15)
            await socket.still_lives()
            going_on = [each for sub, each in asked.items() if sub not in ended]
            for seq in set(world.values) - before:
                values = world.values[seq]
                is_wanted = any(may_have(values, each.channels, wide) for each in going_on)
                assert (seq in socket.seqs()) == is_wanted
                if is_wanted:
                    assert may_have(values, [Channel("all", {})], granted)


async def test_many_users_at_once_each_have_their_own(world: World) -> None:
    """The same channels for everybody, so that groups and interests are shared where they may."""
    async with AsyncExitStack() as stack:
        sockets = {}
        for user in USERS:
            headers = bearer(token_for(user))
            socket = await stack.enter_async_context(
                connect(world.mesh.url, "mesh.v1.cbor", additional_headers=headers)
            )
            await socket.subscribe("all", "event:agent:**", "shared", sub="a")
            sockets[user] = socket
        before = set(world.values)
        await world.publish(EVENTS)
        async with asyncio.TaskGroup() as tasks:
            for socket in sockets.values():
                tasks.create_task(socket.still_lives())
        for user, socket in sockets.items():
            own = {seq for seq in set(world.values) - before if world.values[seq][5] == user}
            assert set(socket.seqs()) == own


async def test_only_what_is_granted_is_said_and_always_as_oneself(world: World) -> None:
    """Over HTTP, twenty events for each token; the log has exactly what the oracle lets in."""
    wanted: list[Values] = []
    before = max(world.values)
    for number in range(40):
        user = USERS[number % len(USERS)]
        granted = world.maker.channels(3)
        jwt = token_for(user, publish=[each.text for each in granted])
        events, allowed = [], []
        for _ in range(20):
            event_type, _, entity, claimed, session = world.maker.event()
            named = {"entity": entity or "e", "user": claimed, "session": session}
            metadata = {key: value for key, value in named.items() if value is not None}
            payload = PAYLOADS.get(event_type, {"agentId": "a", "taskId": "t", "error": "e"})
            events.append({"type": event_type, "payload": payload, "metadata": metadata})
            values = values_of(event_type, "client", entity or "e", user, session)
            allowed.append(may_have(values, [Channel("all", {})], granted))
            if allowed[-1]:
                wanted.append(values)
        _, answers = await get_json(
            world.mesh.url, method="POST", body=json.dumps(events).encode(), headers=bearer(jwt)
        )
        assert [each.get("code") for each in answers] == [
            None if passes else "forbidden" for passes in allowed
        ]
    operator = bearer(token_for("ops", subscribe=["all"]))
    async with connect(world.mesh.url, additional_headers=operator) as client:
        subscribed = await client.subscribe("source:client", since="start")
        await client.expect("live")
        assert int(subscribed["cursor"].partition(":")[2]) == 0
    stored = [each["event"] for each in client.received if each["op"] == "event"]
    assert all(each["source"] == "client" for each in stored)
    said = [
        values_of(
            event["type"],
            event["source"],
            *(event["metadata"].get(key) for key in ("entity", "user", "session")),
        )
        for seq, event in zip(client.seqs("a"), stored, strict=True)
        if seq > before
    ]
    assert sorted(map(str, said)) == sorted(map(str, wanted))
