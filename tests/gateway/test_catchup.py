"""However log, live feed, retention and reads interleave, nothing is lost unsaid or repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jarvis_mesh.gateway.catchup import CatchUp, Missing
from jarvis_mesh.gateway.log_reader import LogState, Page
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.gateway.tail import Tail
from jarvis_mesh.schema import Cursor, parse_channel
from tests.support.stored import stored, unreadable

AGENTS = parse_channel("event:agent:**")
PAGE = 3


def state(first_seq: int = 1, last_seq: int = 10, epoch: str = "1") -> LogState:
    return LogState(epoch, first_seq, last_seq, datetime.now(UTC))


@dataclass
class Simulation:
    """A log, the live feed that follows it, and one feed that catches up; one step at a time."""

    cursor: int
    log: list[StoredEvent] = field(default_factory=list)
    first_seq: int = 1
    position: int = 0
    is_live: bool = False
    received: list[int] = field(default_factory=list)
    gaps: list[Missing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tail = Tail(max_events=4)
        self.catch_up = CatchUp([AGENTS], Cursor("1", self.cursor))
        self.vouched_from: int | None = None
        self.reading: tuple[Page, int] | None = None

    def publish(self, matches: bool) -> None:
        kind = "agent:created" if matches else "system:status"
        payload = {"agentId": "a"} if matches else {"status": "up"}
        self.log.append(stored(len(self.log) + 1, kind, payload=payload))

    def expire(self) -> None:
        self.first_seq = min(self.first_seq + 1, len(self.log) + 1)

    def deliver_copy(self) -> None:
        """The next live copy arrives; before the barrier only the position moves."""
        if self.position == len(self.log):
            return
        event = self.log[self.position]
        self.position += 1
        if self.vouched_from is None or not AGENTS.matches(event.tokens):
            return
        self.tail.append(event)
        if self.is_live:
            self.received.append(event.seq)

    def pass_barrier(self) -> None:
        if self.vouched_from is None:
            self.vouched_from = self.position

    def ask_for_page(self) -> None:
        if self.is_live or self.reading or self.vouched_from is None:
            return
        start = max(self.catch_up.cursor.seq + 1, self.first_seq)
        found = [e for e in self.log[start - 1 :] if AGENTS.matches(e.tokens)]
        page = Page(tuple(found[:PAGE]), pending=len(found) > PAGE)
        self.reading = page, self.position

    def take_page(self) -> None:
        if self.reading is not None:
            page, position = self.reading
            self.reading = None
            self._take(self.catch_up.take(page, position, self.first_seq))

    def use_tail(self) -> None:
        if self.is_live or self.reading:
            return
        floor = None if self.vouched_from is None else max(self.vouched_from, self.tail.floor)
        if self.catch_up.may_use_tail(floor, self.position):
            page = self.tail.page(self.catch_up.cursor.seq)
            self._take(self.catch_up.take(page, self.position))
            self.is_live = not page.pending

    def finish(self) -> None:
        while not self.is_live:
            self.take_page()
            self.use_tail()
            self.ask_for_page()
            if self.catch_up.cursor.seq > self.position:
                self.deliver_copy()
        while self.position < len(self.log):
            self.deliver_copy()

    def _take(self, items: object) -> None:
        assert hasattr(items, "__iter__")
        for item in items:
            if isinstance(item, Missing):
                self.gaps.append(item)
            else:
                self.received.append(item.seq)


STEPS = st.lists(
    st.sampled_from(
        [
            "publish-match",
            "publish-other",
            "deliver_copy",
            "deliver_copy",
            "ask_for_page",
            "take_page",
            "use_tail",
            "expire",
        ]
    ),
    min_size=30,
    max_size=80,
)


@settings(max_examples=500)
@given(before=st.lists(st.booleans(), max_size=15), cursor=st.integers(0, 15), steps=STEPS)
def test_each_event_comes_once_in_order_or_in_a_gap(
    before: list[bool], cursor: int, steps: list[str]
) -> None:
    simulation = Simulation(cursor=min(cursor, len(before)))
    for matches in before:
        simulation.publish(matches)
        simulation.deliver_copy()
    simulation.pass_barrier()
    for step in steps:
        if step.startswith("publish"):
            simulation.publish(step.endswith("match"))
        else:
            getattr(simulation, step)()
    simulation.finish()

    received = simulation.received
    assert received == sorted(set(received))
    missing = {
        seq
        for gap in simulation.gaps
        for seq in range(gap.from_seq, (gap.to_seq or gap.from_seq) + 1)
    }
    start = min(cursor, len(before))
    wanted = {e.seq for e in simulation.log if AGENTS.matches(e.tokens) and e.seq > start}
    assert set(received) | (missing & wanted) == wanted
    if simulation.first_seq == 1:
        assert not missing


def test_a_cursor_of_another_log_is_a_gap_and_goes_on_from_the_start() -> None:
    catch_up = CatchUp([AGENTS], Cursor("7", 40))
    missing = catch_up.begin(state(first_seq=5, epoch="8"))
    assert missing == Missing(41, None, "epoch", Cursor("8", 4))
    assert catch_up.cursor == Cursor("8", 4)


def test_a_cursor_ahead_of_the_log_is_a_reset() -> None:
    catch_up = CatchUp([AGENTS], Cursor("1", 11))
    missing = catch_up.begin(state(last_seq=10))
    assert missing == Missing(12, None, "reset", Cursor("1", 0))


def test_a_cursor_at_the_end_of_the_log_is_no_gap() -> None:
    assert CatchUp([AGENTS], Cursor("1", 10)).begin(state(last_seq=10)) is None


@pytest.mark.parametrize(
    ("events", "first_seq", "gap"),
    [
        ([], 1, None),
        ([], 5, (1, 4)),
        ([3], 1, None),
        ([3], 5, (1, 4)),  # 4 may have gone while the page was read
        ([1, 2, 7], 3, None),  # gone after it was read
        ([1, 2, 7], 7, (3, 6)),  # gone in the middle of a page
        ([7], 7, (1, 6)),
    ],
)
def test_what_expired_before_a_page_was_read_is_a_gap(
    events: list[int], first_seq: int, gap: tuple[int, int] | None
) -> None:
    catch_up = CatchUp([AGENTS], Cursor("1", 0))
    page = Page(tuple(stored(seq) for seq in events), pending=False)
    items = list(catch_up.take(page, 9, first_seq))
    gaps = [(i.from_seq, i.to_seq) for i in items if isinstance(i, Missing)]
    assert gaps == ([] if gap is None else [gap])
    assert [i.seq for i in items if isinstance(i, StoredEvent)] == events


def test_an_unreadable_event_is_a_gap_of_one() -> None:
    catch_up = CatchUp([AGENTS], Cursor("1", 0))
    page = Page((unreadable(4, "agent.created._.x._._._"), stored(5)), pending=False)
    gap, event = catch_up.take(page, 0)
    assert gap == Missing(4, 4, "unreadable", Cursor("1", 4))
    assert isinstance(event, StoredEvent)
    assert catch_up.cursor.seq == 5


def test_ticks_and_what_the_covering_filter_lets_through_stay_out() -> None:
    filters = [parse_channel("event:agent:created"), parse_channel("event:system:status")]
    catch_up = CatchUp(filters, Cursor("1", 0))
    assert catch_up.read_filter.pattern == "*.*._.*.*.*.*"
    page = Page(
        (stored(1, "agent:updated"), unreadable(2, "mesh.tick._.client.g._._"), stored(3)),
        pending=False,
    )
    assert [item.seq for item in catch_up.take(page, 3) if isinstance(item, StoredEvent)] == [3]
    assert catch_up.replayed == 1
