"""The laws of filters: permission is intersection, and never widens."""

from __future__ import annotations

import pytest
from hypothesis import given

from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.filters import (
    ANY,
    SHARED,
    Filter,
    Place,
    cover,
    permitted,
    routing_filter,
    uncovered,
)
from tests.support.strategies import FILTER_LISTS, FILTERS, SUBJECTS

Subject = tuple[str, ...]


def matches_any(filters: tuple[Filter, ...] | list[Filter], subject: Subject) -> bool:
    return any(each.matches(subject) for each in filters)


@given(FILTERS, FILTERS, SUBJECTS)
def test_an_intersection_passes_what_both_pass(a: Filter, b: Filter, subject: Subject) -> None:
    both = a.intersect(b)
    assert (both is not None and both.matches(subject)) is (
        a.matches(subject) and b.matches(subject)
    )


@given(FILTERS, FILTERS)
def test_intersecting_is_symmetric_and_within_both(a: Filter, b: Filter) -> None:
    both = a.intersect(b)
    assert both == b.intersect(a)
    assert both is None or (a.covers(both) and b.covers(both))


@given(FILTERS)
def test_a_filter_intersects_with_itself_and_with_all_to_itself(a: Filter) -> None:
    assert a.intersect(a) == a
    assert a.intersect(ANY) == a
    assert ANY.covers(a)


@given(FILTERS, FILTERS)
def test_covering_is_intersecting_to_the_other(a: Filter, b: Filter) -> None:
    assert a.covers(b) is (a.intersect(b) == b)


@given(FILTERS, FILTERS, SUBJECTS)
def test_what_a_filter_passes_whoever_covers_it_passes(
    a: Filter, b: Filter, subject: Subject
) -> None:
    if a.covers(b) and b.matches(subject):
        assert a.matches(subject)


@given(FILTERS, FILTERS)
def test_a_join_covers_both_and_is_covered_by_whatever_does(a: Filter, b: Filter) -> None:
    joined = a.join(b)
    assert joined == b.join(a)
    assert joined.covers(a)
    assert joined.covers(b)
    for place in Place:  # pinning any token that it leaves free would lose one of the two
        if joined.tokens[place] == "*":
            pins = {a.tokens[place], b.tokens[place]}
            assert "*" in pins or len(pins) == 2


@given(FILTER_LISTS.filter(bool))
def test_cover_covers_all(filters: list[Filter]) -> None:
    whole = cover(filters)
    assert all(whole.covers(each) for each in filters)


@given(FILTER_LISTS, SUBJECTS)
def test_uncovered_keeps_the_union(filters: list[Filter], subject: Subject) -> None:
    assert matches_any(uncovered(filters), subject) is matches_any(filters, subject)


@given(FILTER_LISTS)
def test_uncovered_leaves_none_that_another_covers(filters: list[Filter]) -> None:
    kept = uncovered(filters)
    assert not any(a.covers(b) for a in kept for b in kept if a is not b)


@given(FILTER_LISTS, FILTER_LISTS, SUBJECTS)
def test_permitted_passes_what_is_asked_and_granted(
    asked: list[Filter], granted: list[Filter], subject: Subject
) -> None:
    assert matches_any(permitted(asked, granted), subject) is (
        matches_any(asked, subject) and matches_any(granted, subject)
    )


@given(FILTER_LISTS, FILTER_LISTS)
def test_permitted_is_never_wider_than_the_grants(
    asked: list[Filter], granted: list[Filter]
) -> None:
    for each in permitted(asked, granted):
        assert any(grant.covers(each) for grant in granted)
        assert any(one.covers(each) for one in asked)


def test_pins_that_no_subject_has_room_for_intersect_to_nothing() -> None:
    """Each filter is short enough; a subject with both pins would have over 512 bytes."""
    asked = ANY.pin(Place.SOURCE, "s" * 128).pin(Place.ENTITY, "e" * 128)
    grant = ANY.pin(Place.USER, "u" * 128).pin(Place.SESSION, "x" * 128)
    assert asked.intersect(grant) is None
    assert permitted([asked], [grant]) == ()


def test_shared_passes_nobodys_events_but_not_those_of_a_user_named_underscore() -> None:
    nobodys = ("agent", "created", "_", "s", "_", "_", "_")
    assert SHARED.matches(nobodys)
    assert not SHARED.matches((*nobodys[:5], "%5F", "_"))
    assert routing_filter(Place.USER, "_").matches((*nobodys[:5], "%5F", "_"))


def test_a_filter_of_an_impossible_value_is_refused() -> None:
    with pytest.raises(EventError):
        routing_filter(Place.USER, "")


def test_a_subject_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        ANY.matches(("agent", "created"))
