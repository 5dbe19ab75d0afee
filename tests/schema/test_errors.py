"""One tree of errors, drawn as it is, with the wire's word for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jarvis_mesh.schema import errors
from jarvis_mesh.schema.errors import MeshError, error_from_wire

CODES = {
    *("bad_request", "unknown_op", "bad_channel", "bad_cursor", "unauthorized", "forbidden"),
    *("duplicate_subscription", "unknown_subscription", "limit_exceeded", "rate_limited"),
    *("too_large", "unavailable", "timeout", "internal"),
}
RETRYABLE = {"rate_limited", "unavailable", "timeout", "internal"}


def tree(error: type[MeshError] = MeshError, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    yield depth, error.__name__, error.code
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


def drawn() -> Iterator[tuple[int, str, str]]:
    for line in (errors.__doc__ or "").splitlines():
        words = line.strip("│├└─ ").split()
        if words and words[0].endswith("Error"):
            yield (len(line) - len(line.lstrip(" │├└─"))) // 4 - 1, words[0], words[1]


def test_the_drawing_shows_every_class_in_its_place_with_its_code() -> None:
    assert list(drawn()) == list(tree())


def test_every_code_of_the_protocol_comes_back_as_one_class() -> None:
    for code in CODES:
        error = error_from_wire(code, "what was wrong")
        assert (error.code, error.message) == (code, "what was wrong")
        assert type(error) is not MeshError


def test_no_class_has_a_code_that_the_protocol_lacks() -> None:
    assert {code for _, _, code in tree()} == CODES


@pytest.mark.parametrize("code", sorted(CODES))
def test_only_what_can_succeed_later_unchanged_is_retryable(code: str) -> None:
    assert error_from_wire(code, "").retryable is (code in RETRYABLE)


def test_a_code_from_the_future_is_kept_in_the_message() -> None:
    error = error_from_wire("teapot", "short and stout")
    assert type(error) is MeshError
    assert error.message == "teapot: short and stout"


def test_an_error_without_a_sentence_says_its_code() -> None:
    assert errors.ForbiddenError().message == "forbidden"
