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


def parse_since_option(text: str) -> timedelta | str:
    """Return where a subscription starts, in a form that `Mesh.subscribe` takes.

    Args:
        text: A duration such as 10m, 1h30m, 45s or 2d; an RFC 3339 time; "start" or "last";
            or a cursor that an earlier run printed.

    Raises:
        CursorError: none of these.
    """
    match = _DURATION.fullmatch(text)
    if text and match is not None:
        ago = timedelta(**{unit: int(n) for unit, n in match.groupdict(default="0").items()})
        parse_since({"seconds": ago.total_seconds()})
        return ago
    try:
        parse_since(text)
    except CursorError:
        raise CursorError(
            f"--since {text[:60]!r}: write a duration (10m, 1h30m, 2d), a time such as "
            "2026-01-31T12:00:00Z, start, last, or a cursor that was printed"
        ) from None
    return text
