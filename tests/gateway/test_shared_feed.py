"""What a client is told adds up: each event once, in order, and no cursor that is early.

The real feed, groups, sender and endpoint, with a live feed and an outbox that a test plays. The
client obeys docs/protocol.md, "Whose is an event?".
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.endpoint import Endpoint
from jarvis_mesh.gateway.fanout import Fanout
from jarvis_mesh.gateway.flusher import Flusher
from jarvis_mesh.gateway.formats import JSON
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.latch import Latch
from jarvis_mesh.gateway.limits import ClientLimits
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.outbox import Burst, Outbox
from jarvis_mesh.gateway.page import Page
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.gateway.tail import Tail
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.gateway.turns import Turns
from jarvis_mesh.schema import Cursor, parse_channel
from jarvis_mesh.schema.wire import Subscribed
from tests.support.clock import ManualClock
from tests.support.stored import stored, unreadable

ENTITIES = ("a", "b")
NAMES = ("one", "two", "three")
CHANNELS = {"one": "entity:a", "two": "entity:b", "three": "all"}


class Socket:
    """An outbox that is full when a test says so, and takes everything all the same."""

    def __init__(self) -> None:
        self.is_full = False
        self.has_written = False
        self.lines: list[bytes] = []
        self._drained = Latch(is_open=True)

    @property
    def is_drained(self) -> bool:
        return not self.is_full

    async def drained(self) -> None:
        await self._drained.wait()

    def write(self, message: bytes) -> None:
        self.lines += message.splitlines()

    def write_burst(self, burst: Burst) -> bool:
        if not self.is_full:
            self.lines += burst.joined.splitlines()
        return not self.is_full

    def unacknowledged_bytes(self) -> int:
        return 0

    def fill(self) -> None:
        self.is_full = True
        self._drained.close()

    def drain(self) -> None:
        self.is_full = False
        self._drained.open()


class Live:
    """A live feed whose tail holds everything."""

    epoch = "1"

    def __init__(self) -> None:
        self.position = 0
        self.interests = {name: Interest(parse_channel(CHANNELS[name])) for name in NAMES}
        self._tail = Tail()

    def floor(self, _interests: object) -> int:
        return 0

    def tail_page(self, after_seq: int) -> Page:
        return self._tail.page(after_seq, self.position)

    def deliver(self, event: StoredEvent) -> None:
        for interest in self.interests.values():
            if interest.filter.matches(event.tokens):
                for sink in tuple(interest.sinks):
                    if sink.last_seq < event.seq:
                        sink.last_seq = event.seq
                        sink.deliver(event)
        self._tail.append(event)
        self.position = event.seq


NOBODYS_VISIT = ClientLimits(Settings(), ManualClock()).visit(None, None)


@dataclass(eq=False)
class Part:
    """A live subscription."""

    sub: str
    interest: Interest
    live_after: int = 0

    @property
    def feed(self) -> Any:
        return SimpleNamespace(interests=[self.interest], filters=(self.interest.filter,))


@dataclass
class Told:
    """What a client that obeys the protocol makes of the lines, for one subscription."""

    cursor: int
    seqs: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)


class Stage:
    """One client, its gateway, and what it should have."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.clock = ManualClock()
        self.live = Live()
        self.socket = Socket()
        services = cast(
            Services,
            SimpleNamespace(
                live=self.live,
                fanout=Fanout(Flusher(self.clock, 0.01)),
                metrics=Metrics(),
                turns=Turns(self.clock),
                clock=self.clock,
                settings=Settings(stalled_after=86_400),
            ),
        )
        sender = Sender(JSON, cast(Outbox, self.socket), EncodedRuns())
        self.sender = sender
        sender.on_failure = self.fail
        self.shared = SharedFeed(sender, services, TaskScope(tasks))
        self.endpoint = Endpoint(sender, self.shared, services, ANYBODY, NOBODYS_VISIT)
        self.parts: dict[str, Part] = {}
        self.told: dict[str, Told] = {}
        self.wanted: dict[str, list[int]] = {}
        self.unreadable: dict[str, list[int]] = {}
        self._read = 0
        self._last_untagged = 0

    def fail(self) -> None:
        raise AssertionError("the feed failed")

    def event(self, entity: str, *, readable: bool = True) -> None:
        seq = self.live.position + 1
        event = stored(seq, entity=entity)
        if not readable:
            event = unreadable(seq, event.subject)
        for name, part in self.parts.items():
            if part.interest.filter.matches(event.tokens):
                (self.wanted if readable else self.unreadable)[name].append(seq)
        self.live.deliver(event)

    def subscribe(self, name: str) -> None:
        if name in self.parts:
            return
        cursor = self.live.position
        filters = [self.live.interests[name].filter.pattern]
        self.sender.say(Subscribed(sub=name, filters=filters, cursor=str(Cursor("1", cursor))))
        part = self.parts[name] = Part(name, self.live.interests[name], cursor)
        self.wanted[name], self.unreadable[name] = [], []
        self.shared.add(part)

    def unsubscribe(self, name: str) -> None:
        if name in self.parts:
            self.shared.remove(self.parts.pop(name))
            self.read()
            del self.told[name]

    def heartbeat(self) -> None:
        self.endpoint.look_after(self.clock.monotonic() + 1e6, 1.0)

    def read(self) -> None:
        """Take what has come, as the protocol says."""
        lines, self._read = self.socket.lines[self._read :], len(self.socket.lines)
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"op": "subscribed", "sub": str(sub), "cursor": str(cursor)}:
                self.told[sub] = Told(_seq(cursor))
            case {"op": "event", "seq": int(seq)}:
                assert seq > self._last_untagged, "untagged sequences rise"
                self._last_untagged = seq
                for name, told in self.told.items():
                    if name in self.parts and self._is_of(name, message) and seq > told.cursor:
                        told.seqs.append(seq)
                    told.cursor = max(told.cursor, seq)
            case {"op": "gap", "sub": str(sub), "from": int(first), "to": last, "cursor": cursor}:
                if sub in self.told:
                    self.told[sub].missing += range(first, last + 1)
                    assert _seq(cursor) >= self.told[sub].cursor
                    self.told[sub].cursor = _seq(cursor)
            case {"op": "heartbeat" | "live", "cursor": str(cursor)}:
                for told in self.told.values():
                    told.cursor = max(told.cursor, _seq(cursor))
            case {"op": "lagging", "behind": int(behind)}:
                assert behind <= self.live.position

    def _is_of(self, name: str, message: dict[str, Any]) -> bool:
        entity = message["event"]["metadata"]["entity"]
        return CHANNELS[name] in ("all", f"entity:{entity}")


def _seq(cursor: str) -> int:
    return int(cursor.split(":")[1])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["event", "event", "nonsense"]), st.sampled_from(ENTITIES)),
        st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["fill", "drain", "turn", "heartbeat", "hole"]), st.just("")),
    ),
    max_size=60,
)


@given(STEPS)
@example(
    [("subscribe", "two"), ("fill", ""), ("event", "a"), ("unsubscribe", "two"), ("event", "a")]
)
@example([("event", "a"), ("turn", ""), ("fill", ""), ("event", "a"), ("heartbeat", "")])
@example([("nonsense", "a"), ("fill", ""), ("event", "a"), ("turn", "")])
def test_what_a_client_is_told_adds_up(steps: list[tuple[str, str]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, str]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        stage = Stage(tasks)
        stage.subscribe("one")
        for step, what in steps:
            await _do(stage, step, what)
        stage.socket.drain()
        for _ in range(30):
            await stage.clock.sleep(0)
        stage.read()
    assert stage.shared.is_live
    for name in stage.parts:
        assert stage.told[name].seqs == stage.wanted[name], name
        assert stage.told[name].missing == stage.unreadable[name], name


async def _do(stage: Stage, step: str, what: str) -> None:
    match step:
        case "event":
            stage.event(what)
        case "nonsense":
            stage.event(what, readable=False)
        case "subscribe":
            stage.subscribe(what)
        case "unsubscribe":
            stage.unsubscribe(what)
        case "fill":
            stage.socket.fill()
        case "drain":
            stage.socket.drain()
        case "heartbeat":
            stage.heartbeat()
        case "hole":
            stage.shared.fall_behind()
        case "turn":
            for _ in range(3):
                await stage.clock.sleep(0)
