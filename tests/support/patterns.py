"""Channels, filters and subjects once more, from the protocol alone.

Shares no code with the schema, so that it finds what all of ours agree on wrongly. It knows the
channels that tests use, and routing values that need no escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_ROUTING = {"source": 3, "entity": 4, "user": 5, "session": 6}
"""Which of the seven tokens a channel of that kind pins."""


def pattern_of(channel: str) -> str:
    """Return the filter that a channel stands for, as a NATS pattern."""
    tokens = ["*"] * 7
    if channel == "all":
        return ".".join(tokens)
    for part in channel.split("&"):
        kind, _, value = part.partition(":")
        if kind == "event":
            tokens[:3] = _type_tokens(value.split(":"))
        else:
            tokens[_ROUTING[kind]] = value
    return ".".join(tokens)


def _type_tokens(parts: list[str]) -> list[str]:
    if parts[-1] == "**":
        return [*parts[:-1], *["*"] * (4 - len(parts))]
    return [*parts, *["_"] * (3 - len(parts))]


def subject_of(event: dict[str, Any]) -> list[str]:
    """Return the tokens of an event."""
    types = event["type"].split(":")
    metadata = event.get("metadata", {})
    routing = [metadata.get(key, "_") for key in ("entity", "user", "session")]
    return [*types, *["_"] * (3 - len(types)), event["source"], *routing]


def matches(pattern: str, subject: Sequence[str]) -> bool:
    """Say whether a seven-token pattern matches."""
    tokens = pattern.split(".")
    return all(own in ("*", their) for own, their in zip(tokens, subject, strict=True))


def covers(pattern: str, other: str) -> bool:
    """Say whether *pattern* matches all that *other* does."""
    return matches(pattern, other.split("."))


class AnyOf:
    """A union of patterns, made for matching many subjects."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._pinned = [
            [(index, pin) for index, pin in enumerate(pattern.split(".")) if pin != "*"]
            for pattern in self.patterns
        ]

    def matches(self, subject: Sequence[str]) -> bool:
        """Say whether one of the patterns matches the seven tokens of *subject*."""
        return any(all(subject[index] == pin for index, pin in pinned) for pinned in self._pinned)

    def is_same_as(self, patterns: Sequence[str]) -> bool:
        """Say whether *patterns*, of which none covers another, are these."""
        own = {
            pattern
            for pattern in self.patterns
            if not any(each != pattern and covers(each, pattern) for each in self.patterns)
        }
        return own == set(patterns) and len(patterns) == len(own)
