from __future__ import annotations

from datetime import timedelta

import pytest

from jarvis_mesh.cli.since import parse_since_option
from jarvis_mesh.schema.errors import CursorError


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("2d", timedelta(days=2)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("90m", timedelta(minutes=90)),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, ago: timedelta) -> None:
    assert parse_since_option(text) == ago


@pytest.mark.parametrize(
    "text", ["start", "last", "1700000000000000000:4", "2026-01-31T12:00:00+01:00"]
)
def test_what_the_protocol_takes_is_passed_on(text: str) -> None:
    assert parse_since_option(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "m",
        "30m1h",
        "1.5h",
        "-5m",
        "٣m",
        "99999d",
        "now",
        "yesterday",
        "1700000000000000000:4:3",
        "10 m",
    ],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(CursorError, match=r"10m|between 0"):
        parse_since_option(text)


@pytest.mark.parametrize(
    "text",
    [
        *("21:41", "21:41:00", "9:05", "2026-01-31", "2026-01-31 21:41", "2026-01-31T21:41:00"),
        *("2026-02-30T21:41:00Z", "20260131:2141"),
    ],
)
def test_a_time_without_date_and_zone_is_no_cursor_and_told_what_it_lacks(text: str) -> None:
    with pytest.raises(CursorError, match=r"date and zone, such as 2026-01-31T.*RFC 3339.* 10m"):
        parse_since_option(text)
