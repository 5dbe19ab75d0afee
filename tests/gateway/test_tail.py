"""The tail is bounded, and its floor says from where on it has everything."""

from __future__ import annotations

from jarvis_mesh.gateway.tail import Tail
from tests.support.stored import stored


def seqs_after(tail: Tail, after_seq: int, position: int) -> list[int]:
    """Read the tail to its end."""
    found: list[int] = []
    while after_seq < position:
        page = tail.page(after_seq, position)
        assert page.after_seq <= after_seq < page.upto_seq
        found += [event.seq for event in page.events if event.seq > after_seq]
        after_seq = page.upto_seq
    return found


def test_it_keeps_the_newest_and_says_its_floor() -> None:
    tail = Tail(max_events=3, page_events=2)
    for seq in (2, 4, 6, 8, 10):
        tail.append(stored(seq))
    assert tail.floor == 4
    assert seqs_after(tail, 4, 12) == [6, 8, 10]
    assert seqs_after(tail, 7, 12) == [8, 10]
    assert seqs_after(tail, 11, 12) == []


def test_it_is_bounded_in_bytes_too() -> None:
    size = len(stored(1).body)
    tail = Tail(max_bytes=8 * size)
    for seq in range(1, 100):
        tail.append(stored(seq))
    assert len(seqs_after(tail, tail.floor, 99)) * size <= 9 * size


def test_full_pages_stay_the_same_for_all_who_read_them() -> None:
    tail = Tail(page_events=4)
    for seq in range(1, 6):
        tail.append(stored(seq))
    first = tail.page(0, 5)
    tail.append(stored(6))
    assert tail.page(2, 6) is first
    assert [event.seq for event in tail.page(4, 6).events] == [5, 6]


def test_a_reset_tail_vouches_for_nothing_before_its_floor() -> None:
    tail = Tail()
    tail.append(stored(1))
    tail.reset(floor=7)
    assert tail.floor == 7
    assert tail.page(7, 9).events == ()


def test_what_the_log_let_go_is_let_go_here_too() -> None:
    tail = Tail(page_events=2)
    for seq in range(1, 8):
        tail.append(stored(seq))
    tail.drop_before(6)
    assert tail.floor == 4
    assert seqs_after(tail, 4, 7) == [5, 6, 7]
