"""The flusher delays nothing while traffic is light, and little under load."""

from __future__ import annotations

import asyncio

import pytest

from jarvis_mesh.gateway.flusher import Flusher
from tests.support.clock import ManualClock
from tests.support.waiting import wait_until


class Group:
    """Counts its flushes, each of which takes a while."""

    def __init__(self, clock: ManualClock, takes: float = 0.0) -> None:
        self.flushes = 0
        self._clock = clock
        self._takes = takes

    def flush(self) -> None:
        self.flushes += 1
        self._clock._now += self._takes


class Timers:
    """What the loop was asked to do later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays: list[float] = []
        loop = asyncio.get_running_loop()
        later = loop.call_later

        def call_later(delay: float, *args: object) -> asyncio.TimerHandle:
            self.delays.append(delay)
            return later(0, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_later", call_later)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


async def test_the_first_flush_comes_at_the_end_of_the_turn(timers: Timers) -> None:
    clock = ManualClock()
    flusher, group = Flusher(clock, 0.01), Group(clock)
    flusher.schedule(group)
    assert group.flushes == 0
    await clock.sleep(0)
    assert group.flushes == 1
    assert timers.delays == []


@pytest.mark.parametrize(("takes", "rest"), [(0.004, 0.002), (0.05, 0.01)])
async def test_after_a_flush_it_rests_half_as_long_as_that_took_but_not_longer_than_it_may(
    timers: Timers, takes: float, rest: float
) -> None:
    clock = ManualClock()
    flusher, group = Flusher(clock, 0.01), Group(clock, takes)
    flusher.schedule(group)
    await clock.sleep(0)
    flusher.schedule(group)
    assert timers.delays == [pytest.approx(rest)]
    await wait_until(lambda: group.flushes == 2, "the second flush")


async def test_what_comes_after_the_rest_is_not_delayed(timers: Timers) -> None:
    clock = ManualClock()
    flusher, group = Flusher(clock, 0.01), Group(clock, 0.004)
    flusher.schedule(group)
    await clock.sleep(0)
    await clock.advance(0.003)
    flusher.schedule(group)
    await clock.sleep(0)
    assert group.flushes == 2
    assert timers.delays == []


async def test_it_never_rests_where_it_may_not(timers: Timers) -> None:
    clock = ManualClock()
    flusher, group = Flusher(clock, 0), Group(clock, 0.004)
    for _ in range(3):
        flusher.schedule(group)
        await clock.sleep(0)
    assert group.flushes == 3
    assert timers.delays == []


async def test_all_that_is_due_is_flushed_in_one_go(timers: Timers) -> None:
    clock = ManualClock()
    flusher, groups = Flusher(clock, 0.01), [Group(clock), Group(clock)]
    for group in groups:
        flusher.schedule(group)
    await clock.sleep(0)
    assert [group.flushes for group in groups] == [1, 1]
