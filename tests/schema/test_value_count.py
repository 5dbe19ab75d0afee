"""How many values a message holds is known before they are decoded, and one too many is refused."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jarvis_mesh.schema.errors import TooLargeError
from jarvis_mesh.schema.value_count import MAX_VALUES, check_cbor_count, check_json_count

ODD_SIZES = [
    *("", "x" * 23, "x" * 24, "x" * 255, "x" * 256, "x" * 65_536, "é" * 40_000),
    *(0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53, -1, -24, -(2**40), 1.5, 1e300),
    *(True, None, [], {}, [0] * 23, [0] * 24, [0] * 256, {"k": [{}]}),
]
VALUES = st.recursive(st.sampled_from(ODD_SIZES), lambda inner: st.lists(inner, max_size=30))


def count(value: Any) -> int:
    """Return how many values there are, keys included."""
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    return 1


@settings(max_examples=25)  # each has 65,536 values
@given(VALUES, st.integers(-1, 1))
@example([""], 1)
def test_every_kind_of_item_is_counted_once(value: Any, beyond: int) -> None:
    fill = MAX_VALUES - count(value) + beyond - 1  # the list around them counts too
    whole = [value, *[0] * fill]
    data, text = cbor2.dumps(whole), json.dumps(whole)
    if count(whole) <= MAX_VALUES:
        check_cbor_count(data)
        check_json_count(text)
        check_json_count(text.encode())
    else:
        with pytest.raises(TooLargeError):
            check_cbor_count(data)
        with pytest.raises(TooLargeError):
            check_json_count(text)
        with pytest.raises(TooLargeError):
            check_json_count(text.encode())


def test_indefinite_lengths_and_cut_items_are_passed_over() -> None:
    check_cbor_count(b"\x9f\xbf\x7f" + b"\x78\xff" + b"x" * 255 + b"\xff" * 3 + b"\x5a\xff\xff")
    check_cbor_count(b"\x1c" * 2 * MAX_VALUES)  # malformed at its first byte


def test_a_long_text_is_one_value() -> None:
    check_cbor_count(cbor2.dumps("[" * 1_000_000))
    for text in ("[,:{" * 250_000, '\\"' * 250_000, "é" * 500_000):
        check_json_count(json.dumps(text))


@pytest.mark.parametrize(
    "text", ['"\\"' + '\\"' * 400_000 + "[" * 70_000, "\\" * 1_000_000 + ":" * 70_000]
)
def test_text_that_does_not_end_takes_no_time(text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(TooLargeError):
        check_json_count(text)
    assert time.process_time() - started < 1
