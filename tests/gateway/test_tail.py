"""The tail is bounded, and its floor says from where on it has everything."""

from __future__ import annotations

from jarvis_mesh.gateway.log_reader import PAGE_EVENTS
from jarvis_mesh.gateway.tail import Tail
from tests.support.stored import stored


def test_it_keeps_the_newest_and_says_its_floor() -> None:
    tail = Tail(max_events=3)
    for seq in (2, 4, 6, 8, 10):
        tail.append(stored(seq))
    assert tail.floor == 4
    assert [event.seq for event in tail.page(4).events] == [6, 8, 10]
    assert [event.seq for event in tail.page(7).events] == [8, 10]


def test_it_is_bounded_in_bytes_too() -> None:
    tail = Tail(max_bytes=3 * len(stored(1).body))
    for seq in range(1, 10):
        tail.append(stored(seq))
    assert len(tail.page(tail.floor).events) <= 3


def test_a_long_tail_comes_in_pages() -> None:
    tail = Tail()
    for seq in range(1, PAGE_EVENTS + 2):
        tail.append(stored(seq))
    assert tail.page(0).pending
    assert not tail.page(1).pending


def test_a_reset_tail_vouches_for_nothing_before_its_floor() -> None:
    tail = Tail()
    tail.append(stored(1))
    tail.reset(floor=7)
    assert tail.floor == 7
    assert tail.page(7).events == ()
