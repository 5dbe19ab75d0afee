"""Deadlines: each client's comes once, in time, unless it was moved or forgotten."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.deadlines import INTERVAL, Deadlines
from tests.support.clock import ManualClock

NOW = 1_800_000_000.0


class Client:
    def __init__(self, clock: ManualClock) -> None:
        self.expired_at: list[float] = []
        self._clock = clock

    def expire(self) -> None:
        self.expired_at.append(self._clock.time_ms() / 1000)


async def expired(
    moves: Iterable[tuple[int, float | None]], seconds: float
) -> tuple[list[Client], Deadlines]:
    """Move the deadlines of three clients; return them after *seconds*."""
    clock = ManualClock(int(NOW * 1000))
    deadlines, clients = Deadlines(clock), [Client(clock) for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(deadlines.run())
        for number, at in moves:
            if at is None:
                deadlines.forget(clients[number])
            else:
                deadlines.set(clients[number], at)
        await clock.advance(seconds)
        running.cancel()
    return clients, deadlines


async def test_a_client_expires_once_and_not_before_its_time() -> None:
    (client, *_), deadlines = await expired([(0, NOW + 3.1)], 60)
    (at,) = client.expired_at
    assert NOW + 3.1 <= at <= NOW + 3.1 + 2 * INTERVAL
    assert len(deadlines) == 0


async def test_never_and_the_past_are_deadlines_too() -> None:
    (past, never, _), deadlines = await expired([(0, NOW - 100), (1, math.inf)], 1)
    assert past.expired_at
    assert not never.expired_at
    assert len(deadlines) == 0


async def test_a_deadline_can_be_counted_from_now() -> None:
    clock = ManualClock()
    deadlines, client = Deadlines(clock), Client(clock)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(deadlines.run())
        deadlines.set_within(client, 10)
        await clock.advance(9.9)
        assert not client.expired_at
        await clock.advance(1)
        running.cancel()
    assert client.expired_at


MOVES = st.lists(st.tuples(st.integers(0, 2), st.none() | st.floats(NOW - 5, NOW + 20)))


@given(MOVES)
def test_what_was_said_last_counts(moves: list[tuple[int, float | None]]) -> None:
    clients, deadlines = asyncio.run(expired(moves, 10))
    last = dict(moves)
    for number, client in enumerate(clients):
        at = last.get(number)
        if at is None or at > NOW + 10:
            assert not client.expired_at
        elif at < NOW + 10 - 2 * INTERVAL:
            assert len(client.expired_at) == 1
    assert len(deadlines) == sum(
        not client.expired_at and last.get(number) is not None
        for number, client in enumerate(clients)
    )
