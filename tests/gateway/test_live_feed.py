"""Position, barrier and repair, with breaks at moments that a real server won't choose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jarvis_mesh.gateway.live_feed import LiveFeed
from jarvis_mesh.gateway.log_reader import LogReader, LogState, Page
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema import Filter, encode_body, parse_channel
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


class FakeReader:
    """A log in memory whose reads wait while `gate` is closed."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.epoch = "1"
        self.gate = asyncio.Event()
        self.gate.set()

    async def state(self) -> LogState:
        return LogState(self.epoch, 1, len(self.events), datetime.now(UTC))

    async def page(self, wanted: Filter, start_seq: int) -> Page:
        await self.gate.wait()
        return Page(tuple(self.events[start_seq - 1 : start_seq + 255]), pending=False)


class Sink:
    def __init__(self) -> None:
        self.last_seq = 0
        self.seqs: list[int] = []

    def deliver(self, event: StoredEvent) -> None:
        self.seqs.append(event.seq)


class Stage:
    """A live feed with one interest, whose copies and log a test plays."""

    def __init__(self) -> None:
        self.nats = FakeNats()
        self.reader = FakeReader()
        self.breaks: list[str] = []
        self.feed = LiveFeed(
            cast(NatsConnection, self.nats),
            cast(LogReader, self.reader),
            cast(LogReader, self.reader),
            "test",
            self.breaks.append,
        )
        self.sink = Sink()

    async def open(self) -> None:
        await self.feed.open()
        (interest,) = await self.feed.acquire([parse_channel("all")])
        interest.sinks.add(self.sink)

    def store(self, count: int = 1) -> None:
        for _ in range(count):
            self.reader.events.append(stored(len(self.reader.events) + 1))

    def copy(self, seq: int) -> None:
        event = make_event()
        headers = f"NATS/1.0\r\nNats-Stream: EVENTS\r\nNats-Subject: {SUBJECT}\r\n"
        headers += f"Nats-Sequence: {seq}\r\n\r\n"
        handler = self.nats.handlers["live.*.*.*.*.*.*.*"]
        handler(f"live.{SUBJECT}".encode(), headers.encode(), encode_body(event))


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.open()
    return made


async def test_what_was_missed_comes_before_what_was_held(stage: Stage) -> None:
    stage.store(2)
    stage.copy(1)
    await stage.feed.on_disconnected()
    stage.store(2)
    stage.copy(4)
    assert stage.sink.seqs == [1]
    await stage.feed.repair()
    stage.store()
    stage.copy(5)
    assert stage.sink.seqs == [1, 2, 3, 4, 5]
    assert stage.feed.position == 5


async def test_a_break_during_a_repair_is_repaired_too(stage: Stage) -> None:
    stage.store(3)
    await stage.feed.on_disconnected()
    stage.reader.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(stage.feed.repair())
        await asyncio.wait({first}, timeout=0.01)
        await stage.feed.on_disconnected()
        stage.reader.gate.set()
    stage.store(2)
    stage.copy(5)  # of the newest connection; 4 was never sent
    assert stage.sink.seqs == [1, 2, 3]
    await stage.feed.repair()
    assert stage.sink.seqs == [1, 2, 3, 4, 5]


async def test_another_log_in_place_of_the_one_followed_breaks_off(stage: Stage) -> None:
    stage.store(3)
    stage.feed.observe(await stage.reader.state())
    stage.copy(3)
    stage.reader.epoch = "2"
    stage.feed.observe(await stage.reader.state())
    assert stage.breaks == ["epoch"]
    assert stage.feed.position == 0
    assert stage.feed.epoch == "2"


async def test_a_log_that_forgot_events_breaks_off(stage: Stage) -> None:
    stage.store(3)
    stage.copy(3)
    await stage.feed.on_disconnected()
    stage.reader.events = stage.reader.events[:1]
    await stage.feed.repair()
    assert stage.breaks == ["reset"]
    assert stage.feed.position == 1


async def test_a_foreign_message_is_dropped_and_counted(stage: Stage) -> None:
    handler = stage.nats.handlers["live.*.*.*.*.*.*.*"]
    handler(f"live.{SUBJECT}".encode(), b"", b"forged")
    assert stage.feed.foreign == 1
    assert stage.sink.seqs == []


async def test_without_a_connection_nothing_is_promised(stage: Stage) -> None:
    stage.nats.is_connected = False
    with pytest.raises(UnavailableError):
        await stage.feed.acquire([parse_channel("user:u")])
    assert list(stage.nats.handlers) == ["live.mesh.tick.>", "live.*.*.*.*.*.*.*"]


async def test_a_barrier_on_a_log_that_stands_still_writes_no_tick(stage: Stage) -> None:
    stage.store(1)
    stage.copy(1)
    async with asyncio.TaskGroup() as tasks:
        rounds = tasks.create_task(stage.feed.barrier.run())
        await stage.feed.barrier()
        rounds.cancel()
    assert stage.nats.published == []


async def test_a_barrier_waits_for_its_tick_when_the_log_is_ahead(stage: Stage) -> None:
    stage.store(7)
    async with asyncio.TaskGroup() as tasks:
        rounds = tasks.create_task(stage.feed.barrier.run())
        passing = tasks.create_task(stage.feed.barrier())
        await asyncio.wait({passing}, timeout=0.01)
        assert not passing.done()
        assert stage.nats.published == ["mesh.tick._.client.test._._"]
        stage.copy(8)
        assert (await passing).last_seq == 7
        rounds.cancel()
