"""The bookkeeping of unacknowledged events, without a network."""

from __future__ import annotations

import asyncio

from jarvis_mesh.publishers.window import (
    ACK_TIMEOUT,
    RETRY_PAUSE,
    Pending,
    Window,
    WindowLimits,
)


def make_pending(name: str, size_bytes: int = 10, deadline: float = 100.0) -> Pending:
    loop = asyncio.get_running_loop()
    return Pending(name, f"agent.{name}", bytes(size_bytes), deadline, loop.create_future())


def offer(window: Window, *names: str) -> list[Pending]:
    items = [make_pending(name) for name in names]
    for item in items:
        window.offer(item)
    return items


def sent(window: Window, now: float = 0.0) -> list[str]:
    names = []
    while item := window.next_due(now):
        names.append(item.event_id)
    return names


async def test_everything_admitted_is_due_at_once_in_order() -> None:
    window = Window()
    offer(window, "a", "b", "c")
    assert sent(window) == ["a", "b", "c"]
    assert sent(window) == []


async def test_the_window_is_bounded_in_events_and_who_waits_is_admitted_in_turn() -> None:
    window = Window(WindowLimits(max_events=2))
    items = offer(window, "a", "b", "c", "d")
    assert not window.has_room(1)
    assert sent(window) == ["a", "b"]
    window.settle(items[0].token)
    assert not window.has_room(1), "d waits before anybody new"
    assert sent(window) == ["c"]


async def test_the_window_is_bounded_in_bytes_but_takes_one_large_event() -> None:
    window = Window(WindowLimits(max_bytes=100))
    large = make_pending("large", 1_000)
    window.offer(large)
    offer(window, "a")
    assert sent(window) == ["large"]
    window.settle(large.token)
    assert sent(window) == ["a"]


async def test_after_a_lost_connection_one_is_tried_and_then_the_others_in_order() -> None:
    window = Window()
    items = offer(window, "a", "b", "c")
    sent(window)
    window.rewind(1.0)
    offer(window, "d")
    assert sent(window, 1.0) == ["a"]
    window.settle(items[0].token)
    assert sent(window, 1.0) == ["b", "c", "d"]


async def test_a_late_answer_to_an_earlier_try_counts() -> None:
    window = Window()
    items = offer(window, "a", "b")
    sent(window)
    window.rewind(1.0)
    assert window.settle(items[1].token) is items[1]
    assert sent(window, 1.0) == ["a"]


async def test_a_refusal_pauses_and_tries_the_oldest_alone() -> None:
    window = Window()
    items = offer(window, "a", "b")
    sent(window)
    window.refuse(items[0].token, "starting", 1.0)
    window.refuse(items[1].token, "starting", 1.0)
    assert sent(window, 1.0) == []
    assert sent(window, 1.0 + RETRY_PAUSE) == ["a"]
    assert [item.unanswered for item in items] == [1, 0]


async def test_a_refusal_that_decides_nothing_counts_as_no_answer() -> None:
    window = Window()
    (item,) = offer(window, "a")
    sent(window)
    window.refuse(item.token, "in process", 1.0, undecided=True)
    assert sent(window, 1.0 + RETRY_PAUSE) == ["a"]
    window.refuse(item.token, "no stream", 2.0)
    assert item.unanswered == 1


async def test_a_missing_answer_is_tried_again() -> None:
    window = Window()
    offer(window, "a", "b")
    sent(window)
    assert window.expire(ACK_TIMEOUT - 0.1) == []
    assert sent(window, ACK_TIMEOUT - 0.1) == []
    window.expire(ACK_TIMEOUT)
    assert sent(window, ACK_TIMEOUT) == ["a"]


async def test_an_event_expires_even_while_it_waits_for_room() -> None:
    window = Window(WindowLimits(max_events=1))
    first, second = make_pending("first", deadline=9.0), make_pending("second", deadline=5.0)
    window.offer(first)
    window.offer(second)
    assert window.expire(5.0) == [second]
    assert len(window) == 1


async def test_an_event_whose_future_is_cancelled_is_not_sent() -> None:
    window = Window()
    items = offer(window, "a", "b")
    items[0].ack.cancel()
    assert sent(window) == ["b"]
    assert len(window) == 1


async def test_a_cancelled_event_makes_room() -> None:
    window = Window(WindowLimits(max_events=1))
    items = offer(window, "a", "b")
    sent(window)
    items[0].ack.cancel()
    window.expire(1.0)
    assert sent(window, 1.0) == ["b"]
