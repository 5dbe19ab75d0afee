"""A payload holds what JSON can say; what it can't is refused with its path, and cheaply."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given

from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.json_value import JSON, MAX_DEPTH, MAX_INTEGER, check_json
from tests.support.strategies import JSON_VALUES


def nested(depth: int, innermost: object = 1) -> Any:
    value = innermost
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@given(JSON_VALUES)
def test_what_json_can_say_passes_and_python_s_json_agrees(value: JSON) -> None:
    check_json(value, "payload")
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": b"x"}]}, r"payload\.a\[1\]\.b: bytes travel as base64 text"),
        ({"a": bytearray(b"x")}, r"payload\.a: bytes"),
        ([float("nan")], r"payload\[0\]: nan isn't a finite number"),
        ([1, float("-inf")], r"payload\[1\]: -inf isn't"),
        ({"n": MAX_INTEGER + 1}, r"payload\.n: integers go to"),
        ({"n": -MAX_INTEGER - 1}, r"payload\.n: integers go to"),
        ({"s": "\ud800"}, r"payload\.s: the text has half of a surrogate pair"),
        ({"\udfff": 1}, r"payload\.\\udfff: the text has half of a surrogate pair"),
        ({1: 2}, r"payload\[1\]: a key isn't text"),
        ({"a": {(): 2}}, r"payload\.a\[\(\)\]: a key isn't text"),
        ({"a": {1, 2}}, r"payload\.a: JSON has no set"),
        (object(), r"payload: JSON has no object"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_path(value: object, message: str) -> None:
    with pytest.raises(EventError, match=rf"^{message}") as caught:
        check_json(value, "payload")
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("value", [MAX_INTEGER, -MAX_INTEGER, True, None, "", (), {}, 5e-324])
def test_what_is_at_a_bound_passes(value: object) -> None:
    check_json(value, "payload")


def test_nesting_up_to_the_limit_passes_and_beyond_is_refused() -> None:
    check_json(nested(MAX_DEPTH), "payload")
    with pytest.raises(EventError, match="nested deeper than 64"):
        check_json(nested(MAX_DEPTH + 1), "payload")


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(EventError, match="nested deeper"):
        check_json(loop, "payload")


def test_an_error_below_a_huge_key_has_a_short_message() -> None:
    with pytest.raises(EventError) as caught:
        check_json({"k" * 1_000_000: {"l" * 1_000_000: b""}}, "payload")
    assert len(caught.value.message) < 200


def test_a_long_key_does_not_cost_its_length_for_every_item_below_it() -> None:
    """Paths built on the way in took 12 s for this."""
    start = time.process_time()
    with pytest.raises(EventError):
        check_json({"k" * 500_000: [1] * 250_000 + [b""]}, "payload")
    assert time.process_time() - start < 2
