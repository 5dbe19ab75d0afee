"""Cursors, and the ways to say where a subscription starts.

A cursor says "I have everything that matches, up to here": `<epoch>:<sequence>`. The epoch
names the log (two logs never share one), the sequence a place in it.

Source: docs/protocol.md, "Cursors".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeAlias

from jarvis_mesh.schema.errors import CursorError
from jarvis_mesh.schema.json_value import MAX_INTEGER

_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,19}):(0|[1-9][0-9]{0,15})")
_HH_MM: Final = r"([01]\d|2[0-3]):[0-5]\d"
_RFC3339: Final = re.compile(
    rf"\d{{4}}-\d\d-\d\dT{_HH_MM}:[0-5]\d(\.\d{{1,9}})?(Z|[+-]{_HH_MM})", re.IGNORECASE | re.ASCII
)
"""Stricter than `fromisoformat`, which takes +01:60 and, from Python 3.13 on, 24:00."""
MAX_SEQUENCE: Final = MAX_INTEGER
"""At 1,000 events a second a log gets there in 280,000 years."""
MAX_SECONDS_AGO: Final = 10 * 365 * 86_400
"""Ten years: further back than any log keeps."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a log."""

    epoch: str
    """Identity of the log: the stream's creation time, nanoseconds since 1970, in digits."""
    seq: int
    """Everything that matches, up to and including this sequence, is had."""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    def at(self, seq: int) -> Cursor:
        """Return the cursor at another sequence of the same log."""
        return Cursor(self.epoch, seq)


class Start(Enum):
    """The starts that need no value."""

    NOW = "now"
    """After what is in the log already: what a subscription without `since` gets."""
    BEGINNING = "start"
    """From the first event that the log still has."""
    LAST = "last"
    """The newest event of each matching subject, then live."""


@dataclass(frozen=True, slots=True)
class SecondsAgo:
    """So many seconds before now, by the log's clock."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AtTime:
    """A moment of the log's clock, in UTC; a future one means now."""

    time: datetime


Since: TypeAlias = Cursor | Start | SecondsAgo | AtTime


def parse_cursor(text: str) -> Cursor:
    """Return the cursor written as `<epoch>:<sequence>`.

    Raises:
        CursorError: both parts must be plain decimal digits.
    """
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[2]) > MAX_SEQUENCE:
        raise CursorError(
            f"{text[:60]!r} is no cursor; use one a gateway gave, <epoch>:<sequence> in digits"
        )
    return Cursor(match[1], int(match[2]))


def parse_since(value: object) -> Since:
    """Return the start that the `since` of a subscribe message means.

    Args:
        value: `None` (now), a cursor, `{"seconds": n}`, an RFC 3339 time, "start" or "last".

    Raises:
        CursorError: anything else.
    """
    match value:
        case None:
            return Start.NOW
        case Start.BEGINNING.value | Start.LAST.value:
            return Start(value)
        case str() if _RFC3339.fullmatch(value):
            return _parse_time(value)
        case str():
            return parse_cursor(value)
        case {"seconds": int() | float() as seconds, **rest} if not rest:
            return _parse_seconds(seconds)
    raise CursorError(
        'since is a cursor, {"seconds": n}, an RFC 3339 time such as 2026-01-31T12:00:00Z, '
        '"start" or "last"; leave it out to start from now'
    )


def _parse_time(text: str) -> AtTime:
    try:
        return AtTime(datetime.fromisoformat(text.upper()).astimezone(UTC))
    except (ValueError, OverflowError):  # the 30th of February; before the year 1 in UTC
        raise CursorError(f"{text[:60]!r} is no time that exists") from None


def _parse_seconds(seconds: float) -> SecondsAgo:
    if isinstance(seconds, bool) or not 0 <= seconds <= MAX_SECONDS_AGO:
        raise CursorError(f"since.seconds is a number between 0 and {MAX_SECONDS_AGO}")
    return SecondsAgo(float(seconds))
