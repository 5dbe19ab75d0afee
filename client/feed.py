"""One feed as its client knows it: filters, and a place in the log. No socket, no queue.

A feed is asked for, accepted, and once it has joined the live feed it is *live*. Which events
are its own, and where its cursor stands afterwards, is decided here:

    message                  moves the cursor of           to
    ───────────────────────  ────────────────────────────  ─────────────────────────────
    event for this feed      this feed                     its sequence; back with "last"
    event for all live ones  live feeds it matches         its sequence
                             other live feeds              its sequence, unless lagging
    heartbeat                live feeds                    what it says, unless lagging
    gap                      this feed                     what it says, even backward
    live                     this feed, or all live ones   what it says, never backward
    subscribed               a feed that has no cursor     what it says

Whatever isn't above the cursor was had before, and is dropped.

A feed that has a cursor keeps it at `subscribed`: should the gateway start elsewhere (the log
expired, or is another one), a gap says so, and the connection may be cut between the two.

Source: docs/protocol.md, "Whose is an event?" and "Cursors".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from jarvis_mesh.schema.cursor import Cursor, Start, parse_cursor, parse_since
from jarvis_mesh.schema.errors import BadRequestError, CursorError
from jarvis_mesh.schema.filters import Filter
from jarvis_mesh.schema.json_value import JSON
from jarvis_mesh.schema.wire import Gap, Subscribe, Subscribed

Since: TypeAlias = str | Cursor | timedelta | datetime | None
"""Where a subscription starts: from now (`None`), after a cursor (text or value), so long ago,
at a time with a time zone (also as RFC 3339 text), at the log's beginning ("start"), or with the
newest event of each subject ("last")."""


class Feed:
    """The state of one subscription, over all its connections.

    Args:
        channels: What it is for: at least one.
        since: Where it starts. Once the gateway has accepted it, only the cursor counts.

    Raises:
        CursorError: *since* is none of its forms.
    """

    def __init__(self, channels: Sequence[str], since: Since = None) -> None:
        self.channels = tuple(channels)
        self.cursor: Cursor | None = None
        """Everything that matches was received up to here; `None` before it is accepted."""
        self.is_live = False
        self._since = wire_since(since)
        start = parse_since(self._since)
        if isinstance(start, Cursor):
            self.cursor = start
        self._filters: tuple[Filter, ...] = ()
        self._joins_at_once = False
        self._wants_newest = start is Start.LAST
        self._newest_seq: int | None = None
        """While the newest events ("last") come: the sequence of the one before; at first 0."""

    def request(self, name: str) -> Subscribe:
        """Return what asks for this feed, to go on where it stands, under *name*."""
        since = self._since if self.cursor is None else str(self.cursor)
        self._joins_at_once = since is None
        return Subscribe(id=name, sub=name, channels=list(self.channels), since=since)

    def accept(self, answer: Subscribed) -> None:
        """Begin, or go on, with the filters that the gateway really uses.

        Raises:
            BadRequestError: the answer has filters or a cursor that are none.
        """
        cursor = parse_cursor(answer.cursor)
        self._filters = tuple(_parse_filter(pattern) for pattern in answer.filters)
        self.is_live = self._joins_at_once
        if self.cursor is None:
            self.cursor = cursor
            self._newest_seq = 0 if self._wants_newest else None

    def cut(self) -> None:
        """Note that the connection is gone: what comes next must be asked for."""
        self.is_live = False
        if self._newest_seq == 0:
            self.cursor = None  # it stood behind the newest events, and none of them has come
        self._newest_seq = None

    def take_own(self, seq: int) -> bool:
        """Say whether the event at *seq*, sent for this feed alone, is new; move on if so."""
        assert self.cursor is not None, "only what was accepted gets events"  # noqa: S101
        if self._newest_seq is not None:
            if seq <= self._newest_seq:
                return False
            # They lie before the place where the log was when they were looked up. Whoever
            # goes on from one of them gets more than the newest, but misses none.
            self._newest_seq = seq
            self.cursor = self.cursor.at(seq)
            return True
        is_new = seq > self.cursor.seq
        self._advance(self.cursor.at(seq))
        return is_new

    def take_shared(
        self, seq: int, subject: Sequence[str] | None, *, is_lagging: bool = False
    ) -> bool:
        """Say whether an event sent for all live feeds is this one's and new; move on if so.

        Args:
            seq: Its sequence.
            subject: Its seven tokens; `None` if it can't be read, hence might be anybody's.
            is_lagging: Whether the connection is being caught up.
        """
        if not self.is_live or self.cursor is None or seq <= self.cursor.seq:
            return False
        matches = subject is None or any(own.matches(subject) for own in self._filters)
        if matches or not is_lagging:
            self._advance(self.cursor.at(seq))
        return matches

    def follow(self, cursor: Cursor) -> None:
        """Move a live feed to where the gateway says that nothing was left out."""
        if self.is_live:
            self._advance(cursor)

    def join(self, cursor: Cursor) -> None:
        """Become live at *cursor*."""
        self.is_live = True
        self._newest_seq = None
        self._advance(cursor)

    def skip(self, gap: Gap) -> None:
        """Go on where a gap ends: in another log, or even earlier in this one.

        Raises:
            CursorError: the gap's cursor is none.
        """
        cursor = parse_cursor(gap.cursor)
        if gap.reason == "reset" or self.cursor is None or cursor.epoch != self.cursor.epoch:
            self.cursor = cursor
        else:
            self._advance(cursor)

    def _advance(self, cursor: Cursor) -> None:
        """Move forward, within one log: only a gap leads into another."""
        if self.cursor is not None and cursor.epoch == self.cursor.epoch:
            self.cursor = max(self.cursor, cursor, key=lambda place: place.seq)


def flat_channels(channels: Iterable[str | Iterable[str]]) -> list[str]:
    """Return all of *channels*, given as text or in lists, each once."""
    flat: list[str] = []
    for each in channels:
        flat.extend([each] if isinstance(each, str) else each)
    return list(dict.fromkeys(flat))


def wire_since(since: Since) -> JSON:
    """Return *since* in the form of a subscribe message.

    Raises:
        CursorError: it is none of the forms.
    """
    value: JSON = since
    match since:
        case Cursor():
            value = str(since)
        case timedelta():
            value = {"seconds": since.total_seconds()}
        case datetime(tzinfo=None):
            raise CursorError("since: give the time a time zone, such as datetime.UTC")
        case datetime():
            value = since.astimezone(UTC).isoformat()
    parse_since(value)
    return value


def _parse_filter(pattern: str) -> Filter:
    try:
        return Filter(tuple(pattern.split(".")))
    except ValueError as error:
        raise BadRequestError(f"subscribed: {error}") from None
