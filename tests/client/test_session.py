"""However the messages interleave, each subscription has every event once and in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jarvis_mesh.client.feed import Feed
from jarvis_mesh.client.flow import Flow
from jarvis_mesh.client.listeners import GapNotice, Listeners
from jarvis_mesh.client.session import Session
from jarvis_mesh.client.subscription import Subscription
from jarvis_mesh.schema.cursor import Cursor, parse_cursor
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.wire import PROTOCOL, Limits, Welcome
from tests.support.scripted_gateway import make_event
from tests.support.simulated_gateway import EPOCH, SimulatedGateway

CHANNELS = [["all"], ["entity:a"], ["event:agent:created"], ["entity:b", "entity:c"], ["entity:a"]]
TYPES = ["agent:created", "agent:updated"]
WELCOME = Welcome(protocol=PROTOCOL, connection="c", auth="none", heartbeat_s=1, limits=Limits())


class Watched:
    """A subscription, and what its user saw."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.start: int | None = None
        """The sequence after which it must have everything."""
        self.seen: list[int] = []
        self.gaps: list[GapNotice] = []

    def take(self, count: int) -> None:
        """Take up to *count* events; the cursor is that of the last one."""
        while count and (event := self.subscription.take_nowait()) is not None:
            self.seen.append(event.payload["seq"])
            assert self.subscription.cursor == str(Cursor(EPOCH, self.seen[-1]))
            count -= 1

    def note_start(self) -> None:
        """Note where the gateway let it begin."""
        if self.start is None and self.subscription.feed.cursor is not None:
            self.start = self.subscription.feed.cursor.seq


class World:
    """One client and one gateway. A step has two small numbers to choose with."""

    def __init__(self) -> None:
        self.gateway = SimulatedGateway()
        self.listeners = Listeners()
        self.listeners.add("gap", self._note_gap)
        self.session = Session(self.gateway.requests.append, self._never, self.listeners)
        self.watched: list[Watched] = []
        self.history: dict[int, Event] = {}
        self.session.opened(WELCOME)

    def happen(self, which: int, count: int) -> None:
        for number in range(count + 1):
            seq = self.gateway.last_seq + 1
            event = make_event("abc"[(which + number) % 3], TYPES[which % 2], seq=seq)
            self.gateway.append(event)
            self.history[seq] = event

    def subscribe(self, which: int, start: int) -> None:
        if len(self.watched) < 4:
            since = [None, "start", str(Cursor(EPOCH, max(self.gateway.position - start, 0)))]
            feed = Feed(CHANNELS[which], since[start % 3])
            subscription = Subscription(feed, Flow(), self.session.remove)
            self.watched.append(Watched(subscription))
            self.session.add(subscription)

    def gateway_reads(self, count: int, overlap: int) -> None:
        for _ in range(count + 1):
            self.gateway.read_request(overlap // 2)

    def gateway_sends_live(self, count: int, _: int) -> None:
        for _ in range(count + 1):
            self.gateway.send_live()

    def gateway_replays(self, which: int, count: int) -> None:
        for _ in range(count + 1):
            self.gateway.replay(which, past_position=which % 2 == 0)

    def gateway_says_where_it_is(self, lags: int, _: int) -> None:
        if lags < 2:
            self.gateway.lag()
        else:
            self.gateway.heartbeat()

    def log_expires(self, count: int, _: int) -> None:
        self.gateway.expire(count)

    def client_receives(self, count: int, more: int) -> None:
        for _ in range(min(count + more, len(self.gateway.wire))):
            self._receive()

    def connection_is_cut(self, _: int, __: int) -> None:
        self.gateway.disconnect()
        self.session.cut("cut")
        self.session.opened(WELCOME)

    def user_takes(self, which: int, count: int) -> None:
        for watched in self.watched[which : which + 1]:
            watched.take(count)

    def user_restarts(self, which: int, _: int) -> None:
        """A program ends and goes on from the cursor that it printed."""
        for watched in self.watched[which : which + 1]:
            old = watched.subscription
            if old.cursor is not None:
                feed = Feed(old.channels, old.cursor)
                old.close()
                watched.subscription = Subscription(feed, Flow(), self.session.remove)
                self.session.add(watched.subscription)

    def _receive(self) -> None:
        self.session.receive(self.gateway.wire.popleft())
        for each in self.watched:
            each.note_start()

    def _note_gap(self, notice: GapNotice) -> None:
        for each in self.watched:
            if each.subscription is notice.subscription:
                each.gaps.append(notice)

    def _never(self, *_: object) -> None:
        raise AssertionError("the simulated gateway refuses nothing")

    def finish(self) -> None:
        """Let everything arrive, then compare what was seen with what happened."""
        gateway = self.gateway
        if gateway.is_lagging:
            gateway.lag()
        while gateway.requests:
            gateway.read_request()
        while gateway.position < gateway.last_seq:
            gateway.send_live()
        while gateway.is_replaying:
            gateway.replay(0, past_position=False)
        while gateway.wire:
            self._receive()
        for each in self.watched:
            each.take(-1)
            assert each.seen == self._expected(each), each.subscription.channels

    def _expected(self, watched: Watched) -> list[int]:
        filters = watched.subscription.feed._filters
        start = watched.start
        assert start is not None, "accepted in the end"
        return [
            seq
            for seq, event in self.history.items()
            if seq > start
            and any(each.matches(event.subject.split(".")) for each in filters)
            and not self._was_lost(watched, seq)
        ]

    def _was_lost(self, watched: Watched, seq: int) -> bool:
        """Say whether a gap told of *seq*, and it hadn't been seen before."""
        return seq not in watched.seen and any(
            gap.to_seq is not None and gap.from_seq <= seq <= gap.to_seq for gap in watched.gaps
        )


# How often each step is taken, among 32.
STEPS = [
    *([World.happen] * 4),
    *([World.subscribe] * 2),
    *([World.gateway_reads] * 5),
    *([World.gateway_sends_live] * 4),
    *([World.gateway_replays] * 5),
    *([World.gateway_says_where_it_is] * 2),
    *([World.client_receives] * 5),
    *([World.user_takes] * 2),
    World.log_expires,
    World.connection_is_cut,
    World.user_restarts,
]
small = st.integers(0, 4)
steps = st.lists(st.tuples(st.sampled_from(STEPS), small, small), min_size=60, max_size=160)


@pytest.mark.timeout(330)  # a failure takes hypothesis up to five minutes to make small
@settings(max_examples=150, deadline=None)
@given(steps)
def test_each_subscription_has_every_event_once_and_in_order(
    chosen: list[tuple[Callable[[World, int, int], None], int, int]],
) -> None:
    world = World()
    for step, one, other in chosen:
        step(world, one, other)
    world.finish()


def test_a_cursor_the_gateway_gave_is_what_the_subscription_says() -> None:
    session = Session(lambda _: None, lambda *_: None, Listeners())
    subscription = Subscription(Feed(["all"], "7:9"), Flow(), session.remove)
    session.add(subscription)
    assert subscription.cursor is not None
    assert parse_cursor(subscription.cursor) == Cursor("7", 9)
