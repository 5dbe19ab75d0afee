"""The books of a round: what every subscription wanted, by the truth, and what it got.

For each subscription and each log: wanted are the events that match, after its start and up to
its end. Each of them came exactly once, or a gap names it; nothing else came.

Source: docs/protocol.md, "Promises".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.soak.load import Outcomes
from tests.soak.world import World
from tests.support.subscription import Gap, Span, Subscription
from tests.support.truth import Log, Stored

SHOWN = 8
"""Sequences that a complaint lists."""


@dataclass
class Books:
    """Sums, and what is wrong with them."""

    published: int = 0
    """Events that publishers were told are in the log."""
    refused: int = 0
    unknown: int = 0
    stored: int = 0
    """Events that the log really took."""
    reordered: int = 0
    """Events that stand in the log after one which their source published later. Told, not
    blamed: only while one connection to one server lives is the order of publication kept."""
    wanted: int = 0
    delivered: int = 0
    named: int = 0
    """Wanted, not delivered, and named by a gap."""
    lost: int = 0
    """Wanted, not delivered, and never named."""
    duplicated: int = 0
    out_of_order: int = 0
    surplus: int = 0
    """Delivered though not wanted."""
    gaps: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    @property
    def balance(self) -> bool:
        """Say whether what was wanted is what was delivered, named or lost."""
        return self.wanted == self.delivered + self.named + self.lost

    def add(self, other: Books) -> None:
        """Add another round's sums."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            setattr(self, name, mine + value)

    def complain(self, what: str) -> None:
        """Note what is wrong."""
        self.complaints.append(what)


def keep_books(world: World) -> Books:
    """Return the books of a round that has settled."""
    books = Books()
    for log in world.truth.logs.values():
        books.stored += len(log.events)
        if log.holes:
            books.complain(f"the harness itself was too slow: it hasn't read {log.holes}")
    _check_ids(world, books)
    for follower in world.followers:
        for name, sub in follower.subscriptions.items():
            if not sub.spans:
                books.complain(f"{follower.name}, {name}: never subscribed")
            who = f"{follower.name}, {name} {list(sub.channels)}"
            check_subscription(sub, who, world.truth.logs, books, is_over=False)
        for sub in follower.retired:
            who = f"{follower.name}, one of {list(sub.channels)} that is over"
            check_subscription(sub, who, world.truth.logs, books, is_over=True)
    check_publishers(world.load.outcomes, world.truth.logs, books)
    return books


def check_subscription(
    sub: Subscription, who: str, logs: Mapping[str, Log], books: Books, *, is_over: bool = False
) -> None:
    """Enter into *books* what a subscription wanted and got.

    Args:
        is_over: Whether it was closed, so that it wants nothing after its cursor.
    """
    for span in sub.spans:
        log = logs.get(span.epoch)
        if log is None:
            books.complain(f"{who}: there is no log {span.epoch}")
            continue
        # One that isn't over has to have all; its earlier logs end in a gap without end.
        wants_all = not (is_over and span is sub.span)
        end = max(span.cursor, log.last_event_seq) if wants_all else span.cursor
        _check_span(span, sub, end, who, log, books)


def _check_span(span: Span, sub: Subscription, end: int, who: str, log: Log, books: Books) -> None:
    wanted = [
        event.seq
        for event in log.events
        if span.start < event.seq <= end and sub.wanted.matches(event.subject)
    ]
    got = Counter(span.received)
    named = {seq for seq in wanted if any(gap.names(seq) for gap in span.gaps)}
    lost = [seq for seq in wanted if seq not in got and seq not in named]
    surplus = [seq for seq in got if seq not in set(wanted)]
    books.wanted += len(wanted)
    books.delivered += sum(seq in got for seq in wanted)
    books.named += sum(seq not in got for seq in named)
    books.lost += len(lost)
    books.surplus += len(surplus)
    books.duplicated += sum(got.values()) - len(got)
    books.out_of_order += _descents(span.received)
    if lost:
        books.complain(f"{who}: {_list(lost)} lost; it is at {span.cursor}, the log at {end}")
    if surplus:
        books.complain(f"{who}: {_list(surplus)} came, which it didn't want")
    for gap in span.gaps:
        books.gaps[gap.reason] += 1
        _check_gap(gap, got, who, log, books)


def _check_gap(gap: Gap, got: Counter[int], who: str, log: Log, books: Books) -> None:
    """Complain about a gap with wrong numbers, or without a cause."""
    if came := [seq for seq in got if gap.names(seq)]:
        books.complain(f"{who}: {_list(came)} came, though {gap} names them")
    if gap.reason == "expired" and gap.to_seq is not None:
        first_seq = log.first_seq_at(gap.said_at)
        if gap.to_seq >= first_seq:
            books.complain(f"{who}: {gap}, but the log's first sequence is {first_seq}")
    elif gap.reason != "epoch":
        books.complain(f"{who}: {gap}: nothing of that kind has happened")


def _descents(received: list[int]) -> int:
    """Count what came after something later; a mere repetition is counted elsewhere."""
    highest, count, seen = 0, 0, set()
    for seq in received:
        count += seq < highest and seq not in seen
        highest = max(highest, seq)
        seen.add(seq)
    return count


def _check_ids(world: World, books: Books) -> None:
    """Complain about a sequence that came as another event than the log holds."""
    for epoch, log in world.truth.logs.items():
        for event in log.events:
            came = world.journal.ids.get((epoch, event.seq), event.id)
            if came != event.id:
                books.complain(f"{event} came as {came}")


def check_publishers(outcomes: Outcomes, logs: Mapping[str, Log], books: Books) -> None:
    """Complain about publishers that were told the wrong thing."""
    events = [event for log in logs.values() for event in log.events]
    count = Counter(event.id for event in events)
    books.published += len(outcomes.stored)
    books.refused += len(outcomes.refused)
    books.unknown += len(outcomes.unknown)
    places: dict[str, Stored] = {event.id: event for event in events}
    for event_id, seq in outcomes.stored.items():
        if count[event_id] != 1 or places[event_id].seq != seq:
            books.complain(f"{event_id} was stored as {seq}; it is there {count[event_id]} times")
    for event_id, error in outcomes.refused.items():
        if count[event_id]:
            books.complain(f"{event_id} is in the log, though: {error}")
    for event_id, times in count.items():
        if times > 1 and event_id not in outcomes.stored:
            books.complain(f"{event_id} is in the log {times} times")
    if pending := outcomes.pending:
        books.complain(f"{len(pending)} publications never ended")
    for ids in outcomes.order.values():
        seqs = [outcomes.stored[event_id] for event_id in ids if event_id in outcomes.stored]
        books.reordered += _descents(seqs)
    if strange := count.keys() - outcomes.stored.keys() - outcomes.unknown:
        books.complain(f"{len(strange)} events in the log that nobody knows: {_list(strange)}")


def _list(items: object) -> str:
    found = list(items)  # type: ignore[call-overload]
    rest = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{', '.join(map(str, found[:SHOWN]))}{rest}"
