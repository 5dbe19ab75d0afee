"""The catch-up engine: how a feed gets from a cursor to live, whatever put it behind.

A feed is a place in the log plus filters. A subscription with `since`, a client that comes
back, a reader that was too slow, a history page, and everybody after a hole in the gateway's
own live feed are one case: "go on with this filter after this sequence". No socket, no NATS
and no clock here: the live feed's position, floors and pages go in; events and gaps come out.

                     ┌───────────── fall_behind ◀─────────────┐
                     ▼                                        │
    begin ──▶  PAGE or SKIP ──▶ TAIL ──▶ JOIN ── join ──▶  live
               (from the log)   (from memory)
                     ▲             │
                     └─────────────┘  the tail has moved on

What makes log and live feed meet without loss or repetition, and without a buffer for each:

- *Position* P: every copy up to P that any interest of this process is for has been
  delivered. Copies come in log order, so one number says it for all filters.
- *Floor* F of a feed: the live feed vouches for everything after F that matches. An
  interest vouches from the barrier that it was made with on; the tail, which keeps the last
  few thousand copies, from its oldest on. F is the higher of the two.
- A cursor c with F ≤ c ≤ P reads on from the tail instead of from the log. When it has
  taken the tail's last copy, c = P, it *joins*: what comes after P will be delivered to it,
  and nothing else runs in between.
- A page holds everything up to its end, which may lie beyond P, since the log is ahead of its
  copies. It then moves c to P, so that the feed can join, or to its last event that matches,
  if that is higher: that event's own copy is under way, and the feed WAITs for it, so that
  it isn't delivered twice.
- F is unknown after a hole that was too large to be repaired: only a BARRIER says from where
  on the interests vouch again. Meanwhile the feed's cursor says all.

Retention may remove events before or while a page is read. The server then goes on at the
log's first sequence without a word; so a page comes with the log's first sequence as it was
afterwards, and what lies before that and isn't in the page is said as a gap.

Source: docs/protocol.md, "Cursors" and "Promises"; docs/decisions/0001 and 0003.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from jarvis_mesh.gateway.log_reader import LogState
from jarvis_mesh.gateway.page import Page, Run, is_far
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.cursor import MAX_SEQUENCE, Cursor
from jarvis_mesh.schema.filters import ANY, Filter, cover

SPARSE: Final = 64
"""Sequences from one matching event to the next beyond which a skip is cheaper than pages."""
MAX_SKIP_FILTERS: Final = 8
"""A skip asks once for each filter; for more, once for the one that covers them all."""


class Step(Enum):
    """What a feed needs next."""

    BARRIER = "its interests in force"
    WAIT = "the position at its cursor"
    TAIL = "a page of the tail"
    PAGE = "a page of the log"
    SKIP = "a sparse page of the log"
    JOIN = "nothing more: call `join` before anything else runs"


@dataclass(frozen=True, slots=True)
class Missing:
    """A range in which events that were asked for may be missing for ever."""

    from_seq: int
    to_seq: int | None
    """`None` where the range is of another log, or of one that was reset."""
    reason: str
    """"expired", "epoch", "reset" or "unreadable", as in the message `gap`."""
    cursor: Cursor
    """Where the feed goes on."""
    event: StoredEvent | None = None
    """The one that is unreadable."""


class CatchUp:
    """One feed.

    Args:
        filters: What it is for; an event that passes any of them belongs to it.
        cursor: Everything up to here is had; of whatever log.
    """

    def __init__(self, filters: Sequence[Filter], cursor: Cursor) -> None:
        self.cursor = cursor
        self.is_live = False
        self.replayed = 0
        """Events that were found since it was last behind."""
        self.filters = filters

    @property
    def filters(self) -> Sequence[Filter]:
        """What it is for."""
        return self._filters

    @filters.setter
    def filters(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        self.skip_filters = filters if len(filters) <= MAX_SKIP_FILTERS else (cover(filters),)
        self._is_sparse = ANY not in self.skip_filters

    def begin(self, log: LogState, oldest: int = 1) -> Missing | None:
        """Return what the log as it is now can't give; the cursor is of this log afterwards.

        Args:
            oldest: The first sequence that may be replayed.
        """
        cursor = self.cursor
        if cursor.epoch != log.epoch:
            reason = "epoch"
        elif cursor.seq > log.last_seq:
            reason = "reset"
        else:
            return None
        self.cursor = Cursor(log.epoch, max(log.first_seq, oldest) - 1)
        return Missing(cursor.seq + 1, None, reason, self.cursor)

    def next_step(self, floor: int | None, position: int) -> Step:
        """Return what the feed, which isn't live, needs next.

        Args:
            floor: The live feed vouches for everything after it; `None`: for nothing yet.
            position: The live feed's.
        """
        if floor is None:
            return Step.BARRIER
        here = self.cursor.seq
        if here > position:
            return Step.WAIT
        if here < floor:
            return Step.SKIP if self._is_sparse and is_far(here, position) else Step.PAGE
        return Step.TAIL if here < position else Step.JOIN

    def take(self, page: Page, position: int) -> Iterator[Run | Missing]:
        """Yield what *page* adds to the feed, in order.

        The cursor is behind each item when it is yielded: whoever stops half-way goes on from
        there with another page.

        Args:
            page: One that goes on after the cursor, of the log or of the tail.
            position: The live feed's, now.
        """
        here = self.cursor.seq
        runs = page.runs(self._filters)
        self._note_density(page, runs)
        for from_seq, to_seq in page.holes(here):
            yield from self._pass_on(runs, before=from_seq)
            self.cursor = self.cursor.at(to_seq)
            yield Missing(from_seq, to_seq, "expired", self.cursor)
        yield from self._pass_on(runs)
        self.cursor = self.cursor.at(max(self.cursor.seq, min(page.upto_seq, position)))

    def join(self) -> None:
        """Be live, from the live feed's position on."""
        self.is_live = True

    def fall_behind(self, cursor: Cursor) -> None:
        """Be behind: everything up to *cursor* was delivered."""
        self.is_live = False
        self.cursor = cursor
        self.replayed = 0

    def newest(self, events: Sequence[StoredEvent]) -> Iterator[Run | Missing]:
        """Yield what "last" found, in order; the cursor stays where the log was then."""
        here = self.cursor
        self.cursor = here.at(0)
        last = events[-1].seq if events else 0
        yield from self._pass_on(Page(0, last, events).runs(self._filters))
        self.cursor = here

    def _note_density(self, page: Page, runs: Sequence[Run]) -> None:
        count = sum(map(len, runs))
        self._is_sparse = ANY not in self.skip_filters and (
            page.upto_seq - page.after_seq > SPARSE * count
        )

    def _pass_on(self, runs: Sequence[Run], before: int = MAX_SEQUENCE) -> Iterator[Run | Missing]:
        """Yield what of *runs* lies after the cursor and *before* a sequence, moving the cursor."""
        begin = bisect_right(runs, self.cursor.seq, key=lambda run: run[-1].seq)
        for whole in runs[begin:]:
            run = whole
            if run[0].seq <= self.cursor.seq or run[-1].seq >= before:
                run = tuple(each for each in run if self.cursor.seq < each.seq < before)
            if not run:
                return
            self.cursor = self.cursor.at(run[-1].seq)
            if not run[0].is_readable:
                yield unreadable(run[0], self.cursor.epoch)
            else:
                self.replayed += len(run)
                yield run


def belongs(event: StoredEvent, filters: Sequence[Filter]) -> bool:
    """Say whether *event* passes one of the filters, and is for clients at all."""
    return not event.is_hidden and any(own.matches(event.tokens) for own in filters)


def unreadable(event: StoredEvent, epoch: str) -> Missing:
    """Return what to say of an event of the log that can't be delivered."""
    return Missing(event.seq, event.seq, "unreadable", Cursor(epoch, event.seq), event)
