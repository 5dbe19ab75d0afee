"""However log, live feed, retention, reads and slow clients interleave: nothing is lost unsaid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jarvis_mesh.gateway import page as page_module
from jarvis_mesh.gateway.catchup import CatchUp, Missing, Step
from jarvis_mesh.gateway.log_reader import LogState
from jarvis_mesh.gateway.page import RUN_EVENTS, Page, Run
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.gateway.tail import Tail
from jarvis_mesh.schema import Cursor, parse_channel
from jarvis_mesh.schema.filters import ANY
from tests.support.stored import stored, unreadable

AGENTS = parse_channel("event:agent:**")
PAGE = 3
EPOCH = "1"


def state(first_seq: int = 1, last_seq: int = 10, epoch: str = EPOCH) -> LogState:
    return LogState(epoch, first_seq, last_seq, datetime.now(UTC))


@dataclass
class Simulation:
    """A log, the live feed that follows it, and one feed with its client; one step at a time."""

    cursor: int
    log: list[StoredEvent] = field(default_factory=list)
    first_seq: int = 1
    position: int = 0
    vouched_from: int | None = None
    received: list[int] = field(default_factory=list)
    gaps: list[Missing] = field(default_factory=list)
    room: int = 1_000
    reading: tuple[int, int, list[StoredEvent]] | None = None
    """Where a read begins, where it ends if nothing is found, and what was found."""

    def __post_init__(self) -> None:
        self.tail = Tail(max_events=4, page_events=2)
        self.engine = CatchUp([AGENTS], Cursor(EPOCH, self.cursor))

    def publish_match(self) -> None:
        self.log.append(stored(len(self.log) + 1, "agent:created", payload={"agentId": "a"}))

    def publish_other(self) -> None:
        self.log.append(stored(len(self.log) + 1, "system:status", payload={"status": "up"}))

    def expire(self) -> None:
        self.first_seq = min(self.first_seq + 1, len(self.log) + 1)

    def deliver_copy(self) -> None:
        """The next live copy arrives."""
        if self.position == len(self.log):
            return
        event = self.log[self.position]
        if AGENTS.matches(event.tokens) and self.vouched_from is not None:
            if self.engine.is_live and self.room <= 0:
                self.fall_behind()
            elif self.engine.is_live:
                self.received.append(event.seq)
                self.room -= 1
            self.tail.append(event)
        self.position += 1

    def pass_barrier(self) -> None:
        if self.vouched_from is None:
            self.vouched_from = self.position

    def lose_the_live_feed(self) -> None:
        """A hole too large to be repaired: everybody goes on from the log."""
        self.fall_behind()
        self.vouched_from = None
        self.position = len(self.log)
        self.tail.reset(self.position)

    def fall_behind(self) -> None:
        if self.engine.is_live:
            self.engine.fall_behind(Cursor(EPOCH, self.position))

    def stall(self) -> None:
        self.room = 0

    def drain(self) -> None:
        self.room = 3

    def step(self) -> None:
        """Do what the engine wants; a read of the log is finished by `read_on`."""
        if self.engine.is_live or self.reading or self.room <= 0:
            return
        here = self.engine.cursor.seq
        match self.engine.next_step(self._floor(), self.position):
            case Step.BARRIER:
                self.pass_barrier()
            case Step.TAIL:
                self._take(self.tail.page(here, self.position))
            case Step.JOIN:
                self.engine.join()
            case Step.PAGE:
                line = here - here % PAGE
                start = max(line + 1, self.first_seq)
                self.reading = line, line, self.log[start - 1 : max(line + PAGE, start)]
            case Step.SKIP:
                start = max(here + 1, self.first_seq)
                found = [e for e in self.log[start - 1 :] if AGENTS.matches(e.tokens)]
                near = max(self.position - page_module.NEAR, here)
                self.reading = here, near, found[:1]
            case Step.WAIT:
                pass

    def read_on(self) -> None:
        """The read ends, and the log's first sequence comes with it."""
        if self.reading is None:
            return
        start, end, events = self.reading
        self.reading = None
        end = max(events[-1].seq if events else end, self.first_seq - 1)
        self._take(Page(start, end, events, first_seq=self.first_seq))

    def finish(self) -> None:
        self.drain()
        while not self.engine.is_live or self.position < len(self.log):
            self.room = 1_000
            self.read_on()
            self.step()
            stuck = self.engine.cursor.seq > self.position
            if self.engine.is_live or stuck:
                self.deliver_copy()

    def _floor(self) -> int | None:
        return None if self.vouched_from is None else max(self.vouched_from, self.tail.floor)

    def _take(self, page: Page) -> None:
        for item in self.engine.take(page, self.position):
            if isinstance(item, Missing):
                self.gaps.append(item)
            else:
                self.received += [event.seq for event in item]
                self.room -= len(item)
            if self.room <= 0:
                return


ACTIONS = [
    *["publish_match", "publish_other", "deliver_copy", "deliver_copy", "step", "step", "read_on"],
    *["expire", "stall", "drain", "lose_the_live_feed", "pass_barrier"],
]


@settings(max_examples=500)
@given(
    before=st.lists(st.booleans(), max_size=15),
    cursor=st.integers(0, 15),
    near=st.sampled_from([2, 10_000]),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=30, max_size=100),
)
def test_each_event_comes_once_in_order_or_in_a_gap(
    before: list[bool], cursor: int, near: int, actions: list[str]
) -> None:
    simulation = Simulation(cursor=min(cursor, len(before)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "NEAR", near)
        for matches in before:
            (simulation.publish_match if matches else simulation.publish_other)()
            simulation.deliver_copy()
        for action in actions:
            getattr(simulation, action)()
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
    assert not missing & set(received)
    assert all(seq < simulation.first_seq for seq in missing)


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


def take(engine: CatchUp, page: Page, position: int) -> list[Run | Missing]:
    return list(engine.take(page, position))


def events_of(items: Iterable[Run | Missing]) -> list[int]:
    return [event.seq for item in items if not isinstance(item, Missing) for event in item]


def test_an_unreadable_event_is_a_gap_of_one() -> None:
    engine = CatchUp([AGENTS], Cursor(EPOCH, 0))
    broken = unreadable(4, "agent.created._.x._._._")
    gap, run = take(engine, Page(0, 5, (broken, stored(5))), 9)
    assert gap == Missing(4, 4, "unreadable", Cursor(EPOCH, 4), broken)
    assert events_of([run]) == [5]
    assert engine.cursor.seq == 5


def test_a_page_beyond_the_position_moves_the_cursor_only_to_what_was_sent() -> None:
    engine = CatchUp([AGENTS], Cursor(EPOCH, 0))
    other = stored(3, "system:status", payload={"status": "up"})
    take(engine, Page(0, 3, (stored(1), other)), position=2)
    assert engine.cursor.seq == 2
    take(engine, Page(2, 5, (stored(4),)), position=2)
    assert engine.cursor.seq == 4
    assert engine.next_step(0, 2) is Step.WAIT


def test_who_stops_half_way_goes_on_from_there() -> None:
    engine = CatchUp([ANY], Cursor(EPOCH, 0))
    page = Page(0, 3 * RUN_EVENTS, [stored(seq) for seq in range(1, 3 * RUN_EVENTS + 1)])
    first = next(engine.take(page, page.upto_seq))
    rest = take(engine, page, page.upto_seq)
    assert events_of([first, *rest]) == list(range(1, 3 * RUN_EVENTS + 1))


def test_ticks_stay_out() -> None:
    engine = CatchUp([ANY], Cursor(EPOCH, 0))
    page = Page(0, 3, (stored(1), unreadable(2, "mesh.tick._.client.g._._"), stored(3)))
    assert events_of(take(engine, page, 3)) == [1, 3]
    assert engine.replayed == 2


def far(engine: CatchUp) -> Step:
    return engine.next_step(99_999, 100_000)


def test_sparse_filters_skip_and_dense_ones_read_pages() -> None:
    engine = CatchUp([AGENTS], Cursor(EPOCH, 0))
    assert far(engine) is Step.SKIP  # not known yet: a skip is the cheaper question
    take(engine, Page(0, 1000, (stored(1000),)), 100_000)
    assert far(engine) is Step.SKIP
    take(engine, Page(1000, 1002, (stored(1002),)), 100_000)
    assert far(engine) is Step.PAGE
    take(engine, Page(1002, 2000, ()), 100_000)
    assert far(engine) is Step.SKIP
    assert engine.next_step(2_500, 2_600) is Step.PAGE  # near: cheap, and shared by all


def test_what_wants_everything_never_skips() -> None:
    assert far(CatchUp([AGENTS, ANY], Cursor(EPOCH, 0))) is Step.PAGE
