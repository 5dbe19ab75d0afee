"""The books are audited: each wrong entry must show, and right ones must balance."""

from __future__ import annotations

import pytest

from jarvis_mesh.schema.errors import OutcomeUnknownError, UnavailableError
from tests.soak.books import Books, check_publishers, check_subscription
from tests.soak.load import Outcomes
from tests.support.subscription import Gap, Span, Subscription
from tests.support.truth import Log, Stored

SUBJECT = ("agent", "created", "_", "s", "a1", "u1", "_")
LOGS = {
    epoch: Log(
        epoch,
        [Stored(seq, SUBJECT, f"{epoch}-{seq}") for seq in range(1, 11)],
        last_seq=10,
        first_seqs=[(0.0, 1), (45.0, 1), (50.0, 4), (99.0, 4)],
    )
    for epoch in ("1", "2")
}
"""Two logs of ten events; the first three of each expired at the time 50."""


def books_of(*spans: Span, is_over: bool = False) -> Books:
    sub, books = Subscription(["all"]), Books()
    sub.spans += spans
    check_subscription(sub, "the test", LOGS, books, is_over=is_over)
    assert books.balance
    return books


def span(received: list[int], *gaps: Gap, cursor: int = 10, epoch: str = "1") -> Span:
    return Span(epoch, 0, cursor, received, list(gaps))


EXPIRED = Gap(1, 3, "expired", said_at=60.0)
EVERYTHING = list(range(1, 11))


@pytest.mark.parametrize(
    "books",
    [
        pytest.param(books_of(span(EVERYTHING)), id="everything"),
        pytest.param(books_of(span(EVERYTHING[3:], EXPIRED)), id="an expired beginning"),
        pytest.param(books_of(span([1, 2], cursor=2), is_over=True), id="closed early"),
        pytest.param(
            books_of(
                span([1, 2], Gap(3, None, "epoch", 60.0), cursor=2), span(EVERYTHING, epoch="2")
            ),
            id="another log",
        ),
    ],
)
def test_right_books_have_no_complaints(books: Books) -> None:
    assert books.complaints == []
    assert (books.lost, books.duplicated, books.out_of_order, books.surplus) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("received", "lost", "duplicated", "out_of_order", "surplus"),
    [
        ([1, 2, 3, 4, 6, 7, 8, 9, 10], 1, 0, 0, 0),
        ([*EVERYTHING, 10], 0, 1, 0, 0),
        ([2, 1, *EVERYTHING[2:]], 0, 0, 1, 0),
        ([*EVERYTHING, 11], 0, 0, 0, 1),
    ],
)
def test_each_wrong_entry_is_counted(
    received: list[int], lost: int, duplicated: int, out_of_order: int, surplus: int
) -> None:
    books = books_of(span(received))
    counted = (books.lost, books.duplicated, books.out_of_order, books.surplus)
    assert counted == (lost, duplicated, out_of_order, surplus)


@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(Gap(1, 4, "expired", 60.0), id="still there"),
        pytest.param(Gap(1, 3, "expired", 40.0), id="still there then"),
        pytest.param(Gap(3, None, "reset", 60.0), id="no reset"),
        pytest.param(Gap(3, 3, "unreadable", 60.0), id="readable"),
    ],
)
def test_a_gap_without_cause_is_complained_of(gap: Gap) -> None:
    missing = [seq for seq in EVERYTHING if not gap.names(seq)]
    assert books_of(span(missing, gap)).complaints


def test_a_gap_over_what_came_is_complained_of() -> None:
    assert books_of(span(EVERYTHING, EXPIRED)).complaints


def test_a_publisher_told_the_truth_is_believed() -> None:
    assert not complaints_of(stored={"1-1": 1}, unknown={"1-2", "nowhere"}, refused={"not there"})


@pytest.mark.parametrize(
    "outcomes",
    [
        {"stored": {"1-1": 2}},
        {"stored": {"nowhere": 1}},
        {"refused": {"1-1"}},
        {"pending": {"1-1"}},
    ],
)
def test_a_publisher_told_wrong_is_complained_of(outcomes: dict[str, dict[str, int]]) -> None:
    assert complaints_of(**outcomes)


def complaints_of(
    *,
    stored: dict[str, int] | None = None,
    unknown: set[str] | None = None,
    refused: set[str] | None = None,
    pending: set[str] | None = None,
) -> list[str]:
    """Return the complaints about publishers that were told so of the first log."""
    outcomes, books = Outcomes(), Books()
    outcomes.stored |= stored or {}
    outcomes.unknown |= {event.id for event in LOGS["1"].events} - outcomes.stored.keys()
    outcomes.unknown |= unknown or set()
    outcomes.pending |= pending or set()
    for event_id in unknown or ():
        outcomes.fail(event_id, OutcomeUnknownError("sent"))
    for event_id in refused or ():
        outcomes.unknown.discard(event_id)
        outcomes.fail(event_id, UnavailableError("never sent"))
    check_publishers(outcomes, {"1": LOGS["1"]}, books)
    return books.complaints
