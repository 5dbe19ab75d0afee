"""What JSON can say, which is what a payload may hold.

Every event that comes or goes is walked through here, so a value in order costs no text: the
path for an error is collected only while the error is on its way out.

Source: docs/protocol.md, "Events"; RFC 8259.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from jarvis_mesh.schema.errors import EventError

JSON: TypeAlias = Any
"""What JSON can say: maps with text keys, lists, text, booleans, null, finite numbers."""

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every reader has exactly: JavaScript's numbers end there."""
MAX_DEPTH: Final = 64
"""Deepest nesting of a payload, itself included."""
_MAX_PATH: Final = 100
"""Characters of a path that an error names; keys can be as long as an event."""


def check_json(value: object, path: str, depth: int = MAX_DEPTH) -> None:
    """Raise `EventError`, naming the path, unless *value* is something that JSON can say.

    Bytes travel as base64 text; integers beyond 2^53 - 1 as text.

    Args:
        path: What the value is part of, for the error: `payload`.
        depth: Maps and lists that may stand within one another.
    """
    try:
        _check_json(value, depth)
    except _NotJSONError as error:
        where = path + "".join(reversed(error.path))
        # A key may be what is wrong with its text, and the message has to be sent.
        where = where.encode(errors="backslashreplace").decode()
        if len(where) > _MAX_PATH:
            where = f"{where[:_MAX_PATH]}…"
        raise EventError(f"{where}: {error.reason}") from None


class _NotJSONError(Exception):
    """Collects the path on its way out, so that a value in order costs no path at all."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


def _check_json(value: object, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int):  # bool too, whose two values are within the bounds
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise _NotJSONError("integers go to ±(2^53 - 1); write this one as text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _NotJSONError(f"{value} isn't a finite number")
    elif isinstance(value, dict):
        _check_map(value, depth)
    elif isinstance(value, (list, tuple)):
        _check_list(value, depth)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        raise _NotJSONError("bytes travel as base64 text")
    elif value is not None:
        raise _NotJSONError(f"JSON has no {type(value).__name__}")


def _check_map(value: dict[object, object], depth: int) -> None:
    _check_depth(depth)
    key: object = None
    try:
        for key, item in value.items():
            _check_key(key)
            _check_json(item, depth - 1)
    except _NotJSONError as error:
        error.path.append(f".{key}"[:_MAX_PATH] if isinstance(key, str) else f"[{key!r:.40}]")
        raise


def _check_list(value: Sequence[object], depth: int) -> None:
    _check_depth(depth)
    index = 0
    try:
        for index, item in enumerate(value):  # noqa: B007 - the path needs it
            _check_json(item, depth - 1)
    except _NotJSONError as error:
        error.path.append(f"[{index}]")
        raise


def _check_depth(depth: int) -> None:
    if depth == 0:
        raise _NotJSONError(f"nested deeper than {MAX_DEPTH}")


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise _NotJSONError("a key isn't text")
    _check_text(key)


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotJSONError("the text has half of a surrogate pair; decode it properly") from None
