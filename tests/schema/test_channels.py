"""No name widens its own channel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.schema.channels import MAX_CHANNEL_BYTES, parse_channel
from jarvis_mesh.schema.errors import ChannelError, MeshError
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.filters import Filter
from tests.support.strategies import EVENTS, ROUTING, TEXT

KEYS = ("source", "entity", "user", "session")


def escape(value: str) -> str:
    """Write a value into a channel as the protocol says: only these two need it."""
    return value.replace("%", "%25").replace("&", "%26")


def escape_all(value: str) -> str:
    return "".join(f"%{byte:02x}" for byte in value.encode())


def routing(event: Event) -> dict[str, str | None]:
    about = event.metadata
    return {
        "source": event.source,
        "entity": about.entity,
        "user": about.user,
        "session": about.session,
    }


@given(EVENTS, st.sampled_from(KEYS), ROUTING, st.sampled_from([escape, escape_all]))
def test_a_value_s_channel_passes_exactly_the_events_with_that_value(
    event: Event, key: str, value: str, write: Callable[[str], str]
) -> None:
    passes = parse_channel(f"{key}:{write(value)}").matches(event.subject.split("."))
    assert passes is (routing(event)[key] == value)


@given(EVENTS, st.sampled_from(KEYS))
def test_an_event_s_own_values_are_channels_that_pass_it(event: Event, key: str) -> None:
    value = routing(event)[key]
    if value is not None:
        assert parse_channel(f"{key}:{escape(value)}").matches(event.subject.split("."))


@given(EVENTS, EVENTS)
def test_the_channel_of_all_an_event_s_values_passes_only_events_with_them(
    one: Event, other: Event
) -> None:
    values = {key: value for key, value in routing(one).items() if value is not None}
    channel = "&".join(f"{key}:{escape(value)}" for key, value in values.items())
    same = all(routing(other)[key] == value for key, value in values.items())
    assert parse_channel(channel).matches(other.subject.split(".")) is same


@given(EVENTS, EVENTS)
def test_a_type_s_channel_passes_exactly_the_events_of_that_type(one: Event, other: Event) -> None:
    channel = parse_channel(f"event:{one.type}")
    assert channel.matches(one.subject.split("."))
    assert channel.matches(other.subject.split(".")) is (one.type == other.type)


@given(EVENTS)
def test_an_event_s_subject_is_a_channel_for_it(event: Event) -> None:
    assert parse_channel(event.subject).pattern == event.subject


@given(st.text(max_size=40) | st.text("*>._:&%agent25FSubject", max_size=12) | TEXT)
def test_any_text_is_a_filter_or_a_bad_channel(text: str) -> None:
    try:
        assert isinstance(parse_channel(text), Filter)
    except MeshError as error:
        assert error.code == "bad_channel"  # noqa: PT017 - most texts don't raise here
        error.message.encode()


@given(st.text("*>._:&%agent25FSubject", max_size=12))
def test_only_all_patterns_and_event_channels_leave_the_user_free(text: str) -> None:
    """A channel that begins with user: pins the user, whatever follows."""
    try:
        pinned = parse_channel(f"user:{text}")
    except ChannelError:
        return
    assert pinned.tokens[5] != "*"


@pytest.mark.parametrize("text", ["user:\ud800", "\ud800", "event:\ud800:x", "a.\udfff"])
def test_half_of_a_surrogate_pair_is_a_bad_channel_with_a_message_that_can_be_sent(
    text: str,
) -> None:
    with pytest.raises(ChannelError) as caught:
        parse_channel(text)
    caught.value.message.encode()


def test_a_refusal_of_a_huge_text_is_short() -> None:
    for text in ("x" * 1_000_000, "user:" + "x" * (MAX_CHANNEL_BYTES - 5), "&" * 2_000):
        with pytest.raises(ChannelError) as caught:
            parse_channel(text)
        assert len(caught.value.message) < 400
