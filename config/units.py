"""Quantities as people write them: `7d`, `12h`, `10GiB`."""

from __future__ import annotations

import math
import re
from typing import Final

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES: Final = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_UNITS_OF_BYTES: Final = {name.lower(): count for name, count in _BYTES.items()}
_QUANTITY: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds that *text* means: `7d`, `12h`, `90s`, `250ms` or a bare number.

    Raises:
        ValueError: *text* is none of these; the message says what would be.
    """
    number, unit = _split(text)
    seconds = _SECONDS.get(unit or "s")
    if seconds is None or not math.isfinite(number):
        raise ValueError("write seconds, or a number with ms, s, m, h, d or w, such as 12h")
    return number * seconds


def parse_bytes(text: str) -> int:
    """Return the bytes that *text* means: `10GiB`, `500MB` or a bare number.

    Raises:
        ValueError: *text* is none of these; the message says what would be.
    """
    number, unit = _split(text)
    count = _UNITS_OF_BYTES.get((unit or "B").lower())
    if count is None or not math.isfinite(number):
        raise ValueError("write bytes, or a number with KiB, MiB, GiB, TiB or kB, MB, GB, TB")
    return int(number * count)


def format_bytes(count: int) -> str:
    """Return *count* as a person reads it, such as `1.5 GiB`."""
    for power, prefix in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if count >= 1024**power:
            return f"{count / 1024**power:.3g} {prefix}iB"
    return f"{count} B"


def _split(text: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    return (float(match[1]), match[2]) if match else (math.nan, "")
