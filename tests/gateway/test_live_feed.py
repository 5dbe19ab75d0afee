"""Position, barrier and repair, with breaks at moments that a real server won't choose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jarvis_mesh.gateway.live_feed import MAX_SHORT_ANSWERS, LiveFeed
from jarvis_mesh.gateway.log_pages import LogPages
from jarvis_mesh.gateway.log_reader import LogReader, LogState
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.page import Page
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema import SystemClock, encode_body, parse_channel
from jarvis_mesh.schema.errors import UnavailableError
from tests.support.publishing import make_event
from tests.support.stored import stored

SUBJECT = "agent.created._.tests._._._"


class FakeNats:
    """Records what is listened to; a test says what comes."""

    def __init__(self) -> None:
        self.is_connected = True
        self.handlers: dict[str, Callable[[bytes, bytes, bytes], None]] = {}
        self.published: list[str] = []

    async def listen(self, subject: str, handler: Callable[[bytes, bytes, bytes], None]) -> Any:
        self.handlers[subject] = handler
        return SimpleNamespace(subject=subject)

    async def unlisten(self, subscription: Any) -> None:
        del self.handlers[subscription.subject]

    async def publish(self, subject: str) -> None:
        self.published.append(subject)


class FakeLog:
    """A log in memory, as the readers show it; reads wait while `gate` is closed."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.epoch = "1"
        self.first_seq = 1
        self.gate = asyncio.Event()
        self.gate.set()

    async def state(self) -> LogState:
        return LogState(self.epoch, self.first_seq, len(self.events), datetime.now(UTC))

    def drop_before(self, first_seq: int) -> None:
        pass

    async def page(self, after_seq: int, exists_seq: int) -> Page:
        await self.gate.wait()
        events = self.events[max(after_seq, self.first_seq - 1) : after_seq + 128]
        return Page(after_seq, events[-1].seq, events, first_seq=self.first_seq)


class FakeClients:
    """Notes what the live feed tells the clients."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_hole(self) -> None:
        self.told.append("hole")

    def on_another_log(self, reason: str) -> None:
        self.told.append(reason)


class Sink:
    def __init__(self) -> None:
        self.last_seq = 0
        self.seqs: list[int] = []

    def deliver(self, event: StoredEvent) -> None:
        self.seqs.append(event.seq)


class Stage:
    """A live feed with one interest, whose copies and log a test plays."""

    def __init__(self, channel: str = "all") -> None:
        self.nats = FakeNats()
        self.log = FakeLog()
        self.clients = FakeClients()
        self.metrics = Metrics()
        self.filter = parse_channel(channel)
        self.feed = LiveFeed(
            cast(NatsConnection, self.nats),
            cast(LogReader, self.log),
            cast(LogPages, self.log),
            "test",
            self.clients,
            self.metrics,
            SystemClock(),
        )
        self.sink = Sink()

    async def open(self) -> None:
        await self.feed.open()
        (interest,) = await self.feed.acquire([self.filter])
        interest.sinks.add(self.sink)
        interest.complete_after = 0

    def store(self, count: int = 1) -> None:
        for _ in range(count):
            self.log.events.append(stored(len(self.log.events) + 1))

    def copy(self, seq: int) -> None:
        event = make_event()
        headers = f"NATS/1.0\r\nNats-Stream: EVENTS\r\nNats-Subject: {SUBJECT}\r\n"
        headers += f"Nats-Sequence: {seq}\r\n\r\n"
        handler = self.nats.handlers[f"live.{self.filter.pattern}"]
        handler(f"live.{SUBJECT}".encode(), headers.encode(), encode_body(event))

    def elect(self) -> None:
        advisory = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.EVENTS"
        self.nats.handlers[advisory](advisory.encode(), b"", b"{}")


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.open()
    return made


@pytest.fixture
async def filtered() -> Stage:
    """One that doesn't receive everything, so that a sequence left out proves nothing."""
    made = Stage("event:agent:**")
    await made.open()
    return made


async def test_what_was_missed_comes_before_what_was_held(stage: Stage) -> None:
    stage.store(2)
    stage.copy(1)
    stage.feed.hold("connection")
    stage.store(2)
    stage.copy(4)
    assert stage.sink.seqs == [1]
    await stage.feed.repair()
    stage.store()
    stage.copy(5)
    assert stage.sink.seqs == [1, 2, 3, 4, 5]
    assert stage.feed.position == 5


async def test_a_break_during_a_repair_is_repaired_too(filtered: Stage) -> None:
    stage = filtered
    stage.store(3)
    stage.feed.hold("connection")
    stage.log.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(stage.feed.repair())
        await asyncio.wait({first}, timeout=0.01)
        stage.feed.hold("connection")
        stage.log.gate.set()
    assert stage.feed.held.is_set()
    stage.store(2)
    stage.copy(5)  # of the newest connection; 4 was never sent
    assert stage.sink.seqs == [1, 2, 3]
    await stage.feed.repair()
    assert stage.sink.seqs == [1, 2, 3, 4, 5]


async def test_who_receives_everything_notices_a_sequence_left_out_at_once(stage: Stage) -> None:
    stage.store(4)
    stage.copy(1)
    stage.copy(4)
    assert stage.feed.held.is_set()
    assert stage.sink.seqs == [1]
    await stage.feed.repair()
    assert stage.sink.seqs == [1, 2, 3, 4]


async def test_nothing_of_a_new_leader_passes_before_the_old_ones_losses_are_repaired(
    filtered: Stage,
) -> None:
    filtered.store(3)
    filtered.copy(1)
    filtered.elect()
    filtered.copy(3)  # 2 was stored, and its copy died with the old leader
    assert filtered.sink.seqs == [1]
    await filtered.feed.repair()
    assert filtered.sink.seqs == [1, 2, 3]
    assert b'mesh_resyncs_total{reason="leader"} 1.0' in filtered.metrics.render()


async def test_a_sequence_that_goes_back_is_no_copy_of_the_log_that_was_followed(
    filtered: Stage,
) -> None:
    filtered.store(3)
    filtered.feed.observe(await filtered.log.state())
    filtered.copy(3)
    filtered.log.epoch = "2"
    filtered.copy(1)
    filtered.copy(4)
    assert filtered.sink.seqs == [3]
    await filtered.feed.repair()
    assert filtered.clients.told == ["epoch"]


async def test_copies_of_overlapping_interests_are_no_step_back(filtered: Stage) -> None:
    filtered.copy(1)
    filtered.copy(1)
    filtered.copy(2)
    assert not filtered.feed.held.is_set()
    assert filtered.sink.seqs == [1, 2]


async def test_after_a_hole_too_large_to_repair_everybody_is_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_mesh.gateway.live_feed.MAX_REPAIR", 5)
    stage.store(1)
    stage.copy(1)
    stage.feed.hold("connection")
    stage.store(10)
    await stage.feed.repair()
    assert stage.clients.told == ["hole"]
    assert stage.feed.position == 11
    (interest,) = await stage.feed.acquire([stage.filter])
    assert stage.feed.floor([interest]) is None


async def test_what_expired_in_a_hole_is_left_to_the_feeds_who_say_it_as_a_gap(
    stage: Stage,
) -> None:
    stage.store(1)
    stage.copy(1)
    stage.feed.hold("connection")
    stage.store(10)
    stage.log.first_seq = 6
    await stage.feed.repair()
    assert stage.clients.told == ["hole"]
    assert stage.sink.seqs == [1]
    assert stage.feed.position == 11


async def test_what_is_held_is_bounded_and_read_from_the_log_instead(
    filtered: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_mesh.gateway.live_feed._MAX_HELD", 3)
    filtered.feed.hold("connection")
    filtered.store(6)
    for seq in range(1, 7):
        filtered.copy(seq)
    await filtered.feed.repair()
    assert filtered.sink.seqs == [1, 2, 3, 4, 5, 6]


async def test_another_log_in_place_of_the_one_followed_breaks_off(stage: Stage) -> None:
    stage.store(3)
    stage.feed.observe(await stage.log.state())
    for seq in (1, 2, 3):
        stage.copy(seq)
    stage.log.epoch = "2"
    stage.feed.observe(await stage.log.state())
    assert stage.clients.told == ["epoch"]
    assert stage.feed.position == 0
    assert stage.feed.epoch == "2"


async def test_a_log_that_stays_behind_its_copies_has_forgotten_events(stage: Stage) -> None:
    stage.store(3)
    for seq in (1, 2, 3):
        stage.copy(seq)
    stage.feed.hold("connection")
    stage.log.events = stage.log.events[:1]
    for _ in range(MAX_SHORT_ANSWERS - 1):
        with pytest.raises(UnavailableError):  # a new leader may only be late
            await stage.feed.repair()
    await stage.feed.repair()
    assert stage.clients.told == ["reset"]
    assert stage.feed.position == 1


async def test_a_foreign_message_is_dropped_and_counted(stage: Stage) -> None:
    handler = stage.nats.handlers["live.*.*.*.*.*.*.*"]
    handler(f"live.{SUBJECT}".encode(), b"", b"forged")
    assert b'mesh_drops_total{reason="foreign"} 1.0' in stage.metrics.render()
    assert stage.sink.seqs == []


async def test_without_a_connection_nothing_is_promised(stage: Stage) -> None:
    stage.nats.is_connected = False
    with pytest.raises(UnavailableError):
        await stage.feed.acquire([parse_channel("user:u")])
    assert "live.*.*.*.*.*.u.*" not in stage.nats.handlers


async def test_a_barrier_on_a_log_that_stands_still_writes_no_tick(stage: Stage) -> None:
    stage.store(1)
    stage.copy(1)
    async with asyncio.TaskGroup() as tasks:
        rounds = tasks.create_task(stage.feed.run())
        await stage.feed.barrier()
        rounds.cancel()
    assert stage.nats.published == []


async def test_a_barrier_waits_for_its_tick_when_the_log_is_ahead(filtered: Stage) -> None:
    stage = filtered
    stage.store(7)
    async with asyncio.TaskGroup() as tasks:
        rounds = tasks.create_task(stage.feed.run())
        passing = tasks.create_task(stage.feed.barrier())
        await asyncio.wait({passing}, timeout=0.01)
        assert not passing.done()
        assert stage.nats.published == ["mesh.tick._.client.test._._"]
        stage.copy(8)
        assert (await passing).last_seq == 7
        rounds.cancel()
