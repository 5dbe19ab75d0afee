"""Quantities as people write them."""

from __future__ import annotations

import pytest

from jarvis_mesh.config.units import format_bytes, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7d", 604_800),
        ("12h", 43_200),
        ("1.5m", 90),
        ("250ms", 0.25),
        ("90", 90),
        (" 2 w ", 1209600),
    ],
)
def test_durations_mean_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("10GiB", 10 * 2**30), ("500MB", 500_000_000), ("1.5 kb", 1500), ("4096", 4096), ("7B", 7)],
)
def test_bytes_are_counted(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "d", "7x", "-1s", "1e9s", "9" * 400, "٣s", "inf", "1 2"])
@pytest.mark.parametrize("parse", [parse_duration, parse_bytes])
def test_anything_else_is_refused_with_what_would_be_right(parse: type[int], text: str) -> None:
    with pytest.raises(ValueError, match="write "):
        parse(text)


def test_bytes_are_written_for_people() -> None:
    written = [format_bytes(count) for count in (7, 2048, 1536 * 2**20)]
    assert written == ["7 B", "2 KiB", "1.5 GiB"]
