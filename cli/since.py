"""`--since`, as people write it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from jarvis_mesh.schema.cursor import parse_since
from jarvis_mesh.schema.errors import CursorError

_DURATION: Final = re.compile(
    r"(?:(?P<days>\d{1,5})d)?(?:(?P<hours>\d{1,6})h)?"
    r"(?:(?P<minutes>\d{1,8})m)?(?:(?P<seconds>\d{1,9})s)?",
    re.ASCII,
)
_SHORT_EPOCH: Final = re.compile(r"[0-9]{1,18}:[0-9]+")
"""No log's cursor: nanoseconds since 1970 have had 19 digits since 2001. Likely a time: 21:41."""
_TIME: Final = re.compile(r"\d{1,4}(?:[:-]\d{1,2}){1,2}(?:[T ,].*)?", re.ASCII | re.IGNORECASE)


def parse_since_option(text: str) -> timedelta | str:
    """Return where a subscription starts, in a form that `Mesh.subscribe` takes.

    Args:
        text: A duration such as 10m, 1h30m, 45s or 2d; an RFC 3339 time; "start" or "last";
            or a cursor that an earlier run printed.

    Raises:
        CursorError: none of these, or a time without date and zone.
    """
    match = _DURATION.fullmatch(text)
    if text and match is not None:
        ago = timedelta(**{unit: int(n) for unit, n in match.groupdict(default="0").items()})
        parse_since({"seconds": ago.total_seconds()})
        return ago
    try:
        if not _SHORT_EPOCH.fullmatch(text):
            parse_since(text)
            return text
    except CursorError:
        pass
    raise CursorError(f"--since {text[:60]!r}: {_advice(text)}")


def _advice(text: str) -> str:
    if _SHORT_EPOCH.fullmatch(text) or _TIME.fullmatch(text):
        return (
            "a time needs its date and zone, such as 2026-01-31T21:41:00+01:00 or "
            "2026-01-31T20:41:00Z (RFC 3339); or write a duration such as 10m"
        )
    return (
        "write a duration (10m, 1h30m, 2d), a time such as 2026-01-31T12:00:00Z, start, last, "
        "or a cursor that was printed"
    )
