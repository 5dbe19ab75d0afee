"""Fan-out: everybody gets what is theirs, once, in the order in which it was said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.fanout import BURST_BYTES, Fanout, Group
from jarvis_mesh.gateway.flusher import Flusher
from jarvis_mesh.gateway.formats import JSON, JSON_LINES
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.outbox import Burst, Outbox
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema import parse_channel
from jarvis_mesh.schema.wire import Pong
from tests.support.clock import ManualClock
from tests.support.stored import stored, unreadable

EVENTS = [stored(seq) for seq in range(1, 40)]


class Queue:
    """An outbox whose socket a test lets take everything or nothing."""

    def __init__(self) -> None:
        self.is_full = False
        self.lines: list[bytes] = []
        self.writes = 0

    def write(self, message: bytes) -> None:
        self.lines.append(message)

    def finish(self, code: int, reason: str, *, discard: bool) -> None:
        self.lines.append(b"END")

    def write_burst(self, burst: Burst) -> bool:
        if self.is_full:
            return False
        self.writes += 1
        self.lines += burst.joined.splitlines()
        return True


@dataclass(eq=False)
class Client:
    """A member, and what it should have been told."""

    outbox: Queue = field(default_factory=Queue)
    expected: list[bytes] = field(default_factory=list)
    behind_at: int | None = None

    def __post_init__(self) -> None:
        self.sender = Sender(JSON, cast(Outbox, self.outbox), EncodedRuns())

    def fall_behind_at(self, seq: int) -> None:
        self.behind_at = seq

    def skip_unreadable(self, event: StoredEvent) -> None:
        self.sender.say(Pong(id=event.seq))


class Stage:
    """Everybody watches everything."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.fanout = Fanout(Flusher(self.clock, 0.01))
        self.interest = Interest(parse_channel("all"))
        self.interests = frozenset({self.interest})
        self.position = 0

    def join(self, client: Client) -> None:
        outbox = cast(Outbox, client.outbox)
        client.sender.group = self.fanout.join(client, outbox, self.interests, JSON, self.position)

    def leave(self, client: Client) -> None:
        self.fanout.leave(cast(Outbox, client.outbox), self.interests, JSON)
        client.sender.group = None

    def deliver(self, event: StoredEvent) -> None:
        self.position = event.seq
        for sink in tuple(self.interest.sinks):
            sink.last_seq = event.seq
            sink.deliver(event)


async def test_what_comes_in_one_turn_of_the_loop_is_one_write_to_each() -> None:
    stage, clients = Stage(), [Client(), Client()]
    for client in clients:
        stage.join(client)
    for event in EVENTS[:3]:
        stage.deliver(event)
    assert [client.outbox.lines for client in clients] == [[], []]
    await turn()
    for client in clients:
        assert client.outbox.lines == [event.json for event in EVENTS[:3]]
        assert client.outbox.writes == 1


async def test_all_members_get_the_same_bytes() -> None:
    bursts: list[Burst] = []
    stage, clients = Stage(), [Client(), Client()]
    for client in clients:
        client.outbox.write_burst = lambda burst: not bursts.append(burst)  # type: ignore[method-assign,func-returns-value]
        stage.join(client)
    stage.deliver(EVENTS[0])
    await turn()
    assert len(bursts) == 2
    assert bursts[0].frame is bursts[1].frame


async def test_who_joins_gets_nothing_of_before_and_who_leaves_all_of_it() -> None:
    stage, early, late = Stage(), Client(), Client()
    stage.join(early)
    stage.deliver(EVENTS[0])
    stage.join(late)
    stage.deliver(EVENTS[1])
    stage.leave(early)
    stage.deliver(EVENTS[2])
    await turn()
    assert early.outbox.lines == [EVENTS[0].json, EVENTS[1].json]
    assert late.outbox.lines == [EVENTS[1].json, EVENTS[2].json]


async def test_who_is_full_falls_behind_where_the_burst_begins() -> None:
    stage, slow, fast = Stage(), Client(), Client()
    stage.join(slow)
    stage.join(fast)
    stage.deliver(EVENTS[0])
    await turn()
    slow.outbox.is_full = True
    stage.deliver(EVENTS[4])
    stage.deliver(EVENTS[5])
    await turn()
    assert slow.behind_at == EVENTS[4].seq - 1
    assert slow.outbox.lines == [EVENTS[0].json]
    assert fast.outbox.lines == [EVENTS[0].json, EVENTS[4].json, EVENTS[5].json]


async def test_a_burst_that_grows_large_does_not_wait() -> None:
    stage, client = Stage(), Client()
    stage.join(client)
    large = stored(1, payload={"agentId": "a", "noise": "x" * BURST_BYTES})
    stage.deliver(large)
    assert client.outbox.lines == [large.json]


async def test_after_a_large_burst_small_ones_are_collected_again() -> None:
    stage, client = Stage(), Client()
    stage.join(client)
    stage.deliver(stored(1, payload={"agentId": "a", "noise": "x" * BURST_BYTES}))
    stage.deliver(EVENTS[1])
    stage.deliver(EVENTS[2])
    await turn()
    assert client.outbox.writes == 2


async def test_what_was_collected_comes_before_the_end() -> None:
    stage, client = Stage(), Client()
    stage.join(client)
    client.sender.on_end = lambda: stage.leave(client)
    stage.deliver(EVENTS[0])
    client.sender.end("", 1000)
    client.sender.say(Pong(id=1))
    assert client.outbox.lines == [EVENTS[0].json, b"END"]


async def test_an_unreadable_event_is_told_of_in_its_place() -> None:
    stage, client = Stage(), Client()
    stage.join(client)
    stage.deliver(EVENTS[0])
    stage.deliver(unreadable(2, EVENTS[0].subject))
    stage.deliver(EVENTS[2])
    await turn()
    assert client.outbox.lines == [EVENTS[0].json, b'{"op":"pong","id":2}', EVENTS[2].json]


async def test_a_group_that_nobody_is_in_is_gone() -> None:
    stage, client = Stage(), Client()
    stage.join(client)
    assert stage.fanout.members == 1
    stage.leave(client)
    assert stage.fanout.members == 0
    assert not stage.interest.sinks


async def test_groups_of_different_forms_are_apart() -> None:
    stage, client, other = Stage(), Client(), Client()
    stage.join(client)
    outbox = cast(Outbox, other.outbox)
    group = stage.fanout.join(other, outbox, stage.interests, JSON_LINES, 0)
    assert isinstance(group, Group)
    stage.deliver(EVENTS[0])
    await turn()
    assert other.outbox.lines == client.outbox.lines
    assert len(stage.interest.sinks) == 2


STEPS = st.lists(
    st.tuples(st.sampled_from(["event", "say", "join", "leave", "turn"]), st.integers(0, 2)),
    max_size=40,
)


@given(STEPS)
def test_each_is_told_what_is_theirs_in_the_order_it_was_said(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, int]]) -> None:
    stage, clients = Stage(), [Client() for _ in range(3)]
    members: set[int] = set()
    events = iter(EVENTS)
    for said, (step, which) in enumerate(steps):
        client = clients[which]
        if step == "event" and (event := next(events, None)) is not None:
            stage.deliver(event)
            for member in members:
                clients[member].expected.append(event.json)
        elif step == "say":
            client.sender.say(Pong(id=said))
            client.expected.append(b'{"op":"pong","id":%d}' % said)
        elif step == "join" and which not in members:
            stage.join(client)
            members.add(which)
        elif step == "leave" and which in members:
            stage.leave(client)
            members.discard(which)
        elif step == "turn":
            await turn()
    await turn()
    for client in clients:
        assert client.outbox.lines == client.expected


async def turn() -> None:
    """Let the loop come to its end once."""
    await ManualClock().sleep(0)
