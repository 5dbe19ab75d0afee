"""From a cursor to live: the one way in which a subscription gets what it missed.

A feed is a place in the log plus filters. It becomes live when the live feed can vouch for
everything after that place; until then it reads the log. No socket, no NATS, no clock here.

    begin ──▶ pages of the log ──▶ pages of the tail ──▶ live

What makes the two meet without loss or repetition, and without a buffer per subscription:

- *Position* P: every copy up to P that any interest of this process is for has been
  delivered. Copies come in log order, so one number says it for all filters.
- *Floor* F of a feed: the live feed vouches for everything after F that matches. An
  interest vouches from the barrier that it was made with on; the tail, which keeps the last
  few thousand copies, from its oldest on. F is the higher of the two.
- A cursor c with F ≤ c ≤ P reads on from the tail instead of from the log. When it has
  taken the tail's last copy it *joins*: what comes after P will be delivered to it, and
  nothing else runs in between.
- A page without successors, asked for when the position was p, holds everything up to p: a
  live copy is of a stored event. So its end moves c to at least p, though nothing matched.
- c can pass P, since the log is ahead of its copies. The feed then waits for P to follow: c
  is the sequence of an event that matches, so its own copy is under way.

Retention may remove events before or while a page is read. The server then goes on at the
log's first sequence without a word, so `first_seq` is asked for after every page: what lies
before it and wasn't in the page may have been lost, and is said as a gap.

Source: docs/protocol.md, "Cursors" and "Promises".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jarvis_mesh.gateway.log_reader import LogState, Page
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.filters import Filter, cover


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


class CatchUp:
    """One feed on its way from a cursor to live.

    Args:
        filters: What the feed is for; an event that passes any of them belongs to it.
        cursor: Everything up to here is had; of whatever log.
    """

    def __init__(self, filters: Sequence[Filter], cursor: Cursor) -> None:
        self.cursor = cursor
        self.replayed = 0
        """Events that were found so far."""
        self.read_filter = cover(filters)
        """What to read the log with; `take` drops what passes it without belonging."""
        self._filters = filters

    def begin(self, log: LogState) -> Missing | None:
        """Return what the log as it is now can't give; the cursor is of this log afterwards."""
        cursor = self.cursor
        if cursor.epoch != log.epoch:
            reason = "epoch"
        elif cursor.seq > log.last_seq:
            reason = "reset"
        else:
            return None
        self.cursor = Cursor(log.epoch, log.first_seq - 1)
        return Missing(cursor.seq + 1, None, reason, self.cursor)

    def may_use_tail(self, floor: int | None, position: int) -> bool:
        """Say whether the live feed has everything after the cursor. *floor* `None`: nothing."""
        return floor is not None and floor <= self.cursor.seq <= position

    def newest(self, events: Sequence[StoredEvent]) -> Iterator[StoredEvent | Missing]:
        """Return what "last" found, in order; the cursor stays where the log was then."""
        return self._sort_out(events)

    def take(
        self, page: Page, position: int, first_seq: int = 0
    ) -> Iterator[StoredEvent | Missing]:
        """Return what a page from `cursor` on adds to the feed, in order, and move the cursor.

        Args:
            page: Of the log, read with `read_filter` from the sequence after the cursor on, or
                of the tail.
            position: The live feed's, before the page was asked for.
            first_seq: The log's, after the page was read; the tail has no first.
        """
        had = sum(event.seq < first_seq for event in page.events)
        yield from self._sort_out(page.events[:had])
        missing_from = self._first_not_in(page)
        if missing_from < first_seq:
            self.cursor = self.cursor.at(first_seq - 1)
            yield Missing(missing_from, first_seq - 1, "expired", self.cursor)
        yield from self._sort_out(page.events[had:])
        end = page.events[-1].seq if page.events else self.cursor.seq
        self.cursor = self.cursor.at(end if page.pending else max(end, position))

    def _first_not_in(self, page: Page) -> int:
        """Return the first sequence after the cursor that *page* lacks."""
        expected = self.cursor.seq + 1
        for event in page.events:
            if event.seq != expected:
                break
            expected += 1
        return expected

    def _sort_out(self, events: Sequence[StoredEvent]) -> Iterator[StoredEvent | Missing]:
        for event in events:
            if not belongs(event, self._filters):
                continue
            if event.event is None:
                yield unreadable(event, self.cursor.epoch)
            else:
                self.replayed += 1
                yield event


def belongs(event: StoredEvent, filters: Sequence[Filter]) -> bool:
    """Say whether *event* passes one of the filters, and is for clients at all."""
    return not event.is_hidden and any(own.matches(event.tokens) for own in filters)


def unreadable(event: StoredEvent, epoch: str) -> Missing:
    """Return what to say of an event of the log that can't be delivered."""
    return Missing(event.seq, event.seq, "unreadable", Cursor(epoch, event.seq))
