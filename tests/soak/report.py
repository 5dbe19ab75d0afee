"""The table that a soak ends with, and what is shown of a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.soak.books import Books
from tests.soak.faults import FAULTS
from tests.soak.rounds import Result

SHOWN = 5
"""Violations and complaints of a round that are printed; their number is, too."""


def describe(result: Result) -> str:
    """Return a line on a round, and what went wrong in it."""
    kind = "cluster" if result.plan.clustered else "lone NATS"
    books = result.books
    lines = [
        f"round {result.plan.seed!r} ({kind}): {result.injected.total()} faults, "
        f"{books.stored:,} events, {books.delivered:,} delivered, "
        f"{'clean' if result.is_clean else 'NOT CLEAN'}"
    ]
    if not result.is_clean:
        lines += _shown(books.complaints, "complaints")
        lines += _shown([str(violation) for violation in result.violations], "broken promises")
    return "\n".join(lines)


def _shown(items: Sequence[str], what: str) -> Iterator[str]:
    if items:
        yield f"  {len(items)} {what}:"
        yield from (f"    {item}" for item in items[:SHOWN])


def table(results: Sequence[Result]) -> str:
    """Return the sums of all rounds."""
    books, injected, closed = Books(), Counter[str](), Counter[str]()
    for result in results:
        books.add(result.books)
        injected += result.injected
        closed += result.closed
    rows = [(kind, injected[kind]) for kind in FAULTS if injected[kind]]
    rows += [("faults injected", injected.total())]
    events = [
        ("events published", books.published),
        ("  refused, as their publishers know", books.refused),
        ("  of unknown outcome", books.unknown),
        ("events in the log", books.stored),
        ("  not in the order of publication", books.reordered),
        ("wanted by subscriptions", books.wanted),
        ("delivered", books.delivered),
        ("named by a gap instead", books.named),
        ("lost", books.lost),
        ("duplicated", books.duplicated),
        ("out of order", books.out_of_order),
        ("delivered though not wanted", books.surplus),
        *((f"gaps said: {reason}", count) for reason, count in sorted(books.gaps.items())),
        ("promises broken", sum(len(result.violations) for result in results)),
        ("complaints of the books", len(books.complaints)),
        ("connections", sum(result.connections for result in results)),
        ("tracebacks in gateways' logs", sum(result.tracebacks for result in results)),
        ("times lagging", sum(result.lagged for result in results)),
        *((f"connections ended: {how}", count) for how, count in sorted(closed.items())),
    ]
    return "\n".join([*_lines(rows), "", *_lines(events)])


def _lines(rows: Sequence[tuple[str, int]]) -> Iterator[str]:
    for name, count in rows:
        yield f"{name:<38}{count:>12,}"
