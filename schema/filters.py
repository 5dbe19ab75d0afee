"""Filters: seven tokens, each pinned or free.

Channels, NATS patterns, permissions and log reads are all filters. A filter is exactly one
NATS pattern; permission is intersection, which takes seven comparisons.

Source: docs/protocol.md, "Filters".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from jarvis_mesh.schema.subjects import (
    ENCODED_TOKEN,
    MAX_SUBJECT_BYTES,
    MAX_TOKEN_BYTES,
    NONE,
    TOKENS,
    encode_token,
)

FREE: Final = "*"
"""The token of a place that may hold anything. No encoded value looks like it."""
MAX_FILTERS: Final = 64
"""Filters of one subscription, after those that another covers are dropped."""


Shape: TypeAlias = tuple[bool, ...]
"""Of the seven places, which ones are pinned."""


class Place(IntEnum):
    """Which token is which."""

    FAMILY = 0
    NAME = 1
    DETAIL = 2
    SOURCE = 3
    ENTITY = 4
    USER = 5
    SESSION = 6


@dataclass(frozen=True, slots=True)
class Filter:
    """Seven tokens, each `*` or an encoded literal.

    Raises:
        ValueError: the tokens can't be those of a filter.
    """

    tokens: tuple[str, ...]
    pattern: str = field(init=False, compare=False)
    """The NATS pattern: the seven tokens joined by dots."""
    shape: Shape = field(init=False, compare=False, repr=False)
    """Which places it pins. Few shapes are in use: one for ten thousand `user:` filters."""

    def __post_init__(self) -> None:
        if len(self.tokens) != TOKENS or not all(_is_token(token) for token in self.tokens):
            raise ValueError(f"not the seven tokens of a filter: {self.tokens!r:.200}")
        pattern = ".".join(self.tokens)
        if len(pattern) > MAX_SUBJECT_BYTES:
            raise ValueError(f"the filter takes {len(pattern)} bytes, over {MAX_SUBJECT_BYTES}")
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "shape", tuple(token != FREE for token in self.tokens))

    def __str__(self) -> str:
        return self.pattern

    def matches(self, subject: Sequence[str]) -> bool:
        """Say whether the subject with these seven tokens passes."""
        return all(own in (FREE, token) for own, token in zip(self.tokens, subject, strict=True))

    def covers(self, other: Filter) -> bool:
        """Say whether everything that passes *other* passes this filter too."""
        return all(
            own in (FREE, token) for own, token in zip(self.tokens, other.tokens, strict=True)
        )

    def intersect(self, other: Filter) -> Filter | None:
        """Return the filter of what passes both; `None` when nothing can."""
        tokens = []
        for own, their in zip(self.tokens, other.tokens, strict=True):
            if own == FREE:
                tokens.append(their)
            elif their in (FREE, own):
                tokens.append(own)
            else:
                return None
        common = tuple(tokens)
        if common == self.tokens:
            return self
        if common == other.tokens:
            return other
        # Two filters can each be short enough and pin more together than any subject has.
        if len(".".join(common)) > MAX_SUBJECT_BYTES:
            return None
        return Filter(common)

    def join(self, other: Filter) -> Filter:
        """Return the narrowest filter that covers both."""
        return Filter(
            tuple(
                own if own == their else FREE
                for own, their in zip(self.tokens, other.tokens, strict=True)
            )
        )

    def pin(self, place: Place, token: str) -> Filter:
        """Return this filter with one more token pinned to an encoded literal."""
        return Filter((*self.tokens[:place], token, *self.tokens[place + 1 :]))


def _is_token(token: str) -> bool:
    return token == FREE or (
        len(token) <= MAX_TOKEN_BYTES and ENCODED_TOKEN.fullmatch(token) is not None
    )


def masked(subject: Sequence[str], shape: Shape) -> tuple[str, ...]:
    """Return the tokens of the one filter of this *shape* that *subject* passes.

    So all filters that a subject passes are found with one look-up per shape.
    """
    return tuple(token if pinned else FREE for token, pinned in zip(subject, shape, strict=True))


ANY: Final = Filter((FREE,) * TOKENS)
"""The filter that everything passes: the channel `all`."""
SHARED: Final = ANY.pin(Place.USER, NONE)
"""The filter of events that belong to nobody in particular: the channel `shared`."""


def routing_filter(place: Place, value: str) -> Filter:
    """Return the filter of every event whose routing *place* holds *value*.

    Args:
        place: SOURCE, ENTITY, USER or SESSION; the other six tokens are free.
        value: The text as the user knows it, 1 to 128 bytes once encoded.

    Raises:
        EventError: *value* can't be a token.
    """
    return ANY.pin(place, encode_token(value))


def uncovered(filters: Iterable[Filter]) -> tuple[Filter, ...]:
    """Return *filters* without repetitions and without those that another one covers.

    It takes a look-up per filter and shape, since a client may ask for 6,400 of them: those that
    pin fewest tokens come first, so whatever covers a filter is kept by then.
    """
    given = tuple(dict.fromkeys(filters))
    kept: dict[Shape, set[tuple[str, ...]]] = {}
    for candidate in sorted(given, key=lambda each: sum(each.shape)):
        covered = (masked(candidate.tokens, shape) in tokens for shape, tokens in kept.items())
        if not any(covered):
            kept.setdefault(candidate.shape, set()).add(candidate.tokens)
    return tuple(each for each in given if each.tokens in kept.get(each.shape, ()))


def permitted(asked: Iterable[Filter], granted: Iterable[Filter]) -> tuple[Filter, ...]:
    """Return what remains of the filters *asked* for within those *granted*.

    Every non-empty intersection of the two, those that another covers dropped; empty when
    nothing asked for is granted.
    """
    grants = tuple(granted)
    both = (asked_for.intersect(grant) for asked_for in asked for grant in grants)
    return uncovered(common for common in both if common is not None)


def cover(filters: Sequence[Filter]) -> Filter:
    """Return the narrowest single filter that covers all of *filters* (at least one)."""
    joined = filters[0]
    for other in filters[1:]:
        joined = joined.join(other)
    return joined
