"""Interests are found by subject at a cost that depends on shapes, not on filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.interest import Interest, Interests
from jarvis_mesh.schema import Filter

TOKENS = st.sampled_from(["a", "b", "c"])
FILTERS = st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=7, max_size=7).map(
    lambda tokens: Filter(tuple(tokens))
)


@given(st.sets(FILTERS, max_size=30), st.lists(TOKENS, min_size=7, max_size=7))
def test_matching_finds_what_comparing_with_every_filter_finds(
    filters: set[Filter], subject: list[str]
) -> None:
    interests = Interests()
    for wanted in filters:
        interests.add(Interest(wanted))
    found = {interest.filter for interest in interests.matching(subject)}
    assert found == {wanted for wanted in filters if wanted.matches(subject)}


def test_removed_interests_are_gone_and_their_shapes_too() -> None:
    interests = Interests()
    interest = Interest(Filter(("a", *"*" * 6)))
    interests.add(interest)
    interests.remove(interest)
    assert list(interests.matching("abcdefg")) == []
    assert len(interests) == 0
    with pytest.raises(KeyError):
        interests.remove(interest)
