"""Cursors are exact; a since is one of five things or an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.schema.cursor import MAX_SEQUENCE, AtTime, Cursor, parse_cursor, parse_since
from jarvis_mesh.schema.errors import CursorError
from tests.support.strategies import JSON_VALUES

CURSORS = st.builds(
    Cursor, epoch=st.integers(0, 10**20 - 1).map(str), seq=st.integers(0, MAX_SEQUENCE)
)


@given(CURSORS)
def test_parsing_a_cursor_undoes_writing_it(cursor: Cursor) -> None:
    assert parse_cursor(str(cursor)) == cursor
    assert parse_since(str(cursor)) == cursor


@given(st.text("0123456789:.-+ ", max_size=12) | st.text())
def test_a_text_that_parses_is_the_one_that_is_written(text: str) -> None:
    try:
        cursor = parse_cursor(text)
    except CursorError:
        return
    assert str(cursor) == text


def test_a_cursor_moves_within_its_log() -> None:
    assert Cursor("17", 4).at(9) == Cursor("17", 9)


@given(JSON_VALUES | st.floats() | st.integers() | st.binary(max_size=4) | st.text())
def test_any_value_is_a_since_or_a_bad_cursor(value: object) -> None:
    for since in (value, {"seconds": value}, [value]):
        try:
            parse_since(since)
        except CursorError as error:
            assert error.code == "bad_cursor"  # noqa: PT017 - many don't raise
            error.message.encode()


@given(
    st.datetimes(datetime.min + timedelta(days=1), datetime.max - timedelta(days=1)),
    st.integers(-1439, 1439),
)
def test_a_time_is_the_same_moment_in_utc(time: datetime, offset: int) -> None:
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    text = f"{time.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}"
    since = parse_since(text)
    assert isinstance(since, AtTime)
    assert since.time == time.replace(tzinfo=UTC) - timedelta(minutes=offset)
    assert since.time.tzinfo is UTC


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -0.1, 10**400, True])
def test_seconds_that_are_no_span_are_refused(seconds: float) -> None:
    with pytest.raises(CursorError, match="between 0 and"):
        parse_since({"seconds": seconds})


def test_a_time_before_the_first_year_is_refused_rather_than_failing_later() -> None:
    with pytest.raises(CursorError, match="no time that exists"):
        parse_since("0001-01-01T00:00:00+00:01")
