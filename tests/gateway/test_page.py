"""A page finds what passes a filter, and the holes that retention has left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.page import Page
from jarvis_mesh.gateway.stored_event import Place, StoredEvent
from jarvis_mesh.schema import Filter
from tests.support.stored import stored
from tests.support.strategies import FILTERS, SUBJECTS

PAGES = st.lists(SUBJECTS, max_size=20)


@given(subjects=PAGES, filters=st.lists(FILTERS, max_size=4))
def test_what_matches_is_found_once_and_in_order(
    subjects: list[tuple[str, ...]], filters: list[Filter]
) -> None:
    events = [
        StoredEvent(Place(".".join(tokens), seq), b"", b"")
        for seq, tokens in enumerate(subjects, 1)
    ]
    page = Page(0, len(events), events)
    wanted = [event.seq for event in events if any(each.matches(event.tokens) for each in filters)]
    assert [event.seq for run in page.runs(tuple(filters)) for event in run] == wanted


@pytest.mark.parametrize(
    ("events", "upto", "first_seq", "holes"),
    [
        ([1, 2, 3], 3, 1, []),
        ([], 4, 5, [(1, 4)]),
        ([3], 3, 1, []),  # deleted by hand: no hole
        ([5, 6], 6, 5, [(1, 4)]),
        ([3], 4, 5, [(1, 2), (4, 4)]),  # 4 has gone while the page was read
        ([1, 2, 7], 7, 3, []),  # 1 and 2 have gone after they were read
        ([1, 2, 7], 7, 7, [(3, 6)]),
        ([1, 2, 7], 7, 5, [(3, 4)]),
    ],
)
def test_what_expired_before_it_was_read_is_a_hole(
    events: list[int], upto: int, first_seq: int, holes: list[tuple[int, int]]
) -> None:
    page = Page(0, upto, [stored(seq) for seq in events], first_seq=first_seq)
    assert list(page.holes(0)) == holes


def test_holes_begin_after_the_cursor() -> None:
    page = Page(0, 9, [stored(8), stored(9)], first_seq=8)
    assert list(page.holes(5)) == [(6, 7)]
    assert list(page.holes(7)) == []
