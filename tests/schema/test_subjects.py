"""One value, one token; an event, one subject."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.subjects import (
    ENCODED_TOKEN,
    MAX_TOKEN_BYTES,
    NONE,
    decode_token,
    encode_token,
    is_subject,
    subject_of,
    type_tokens,
)
from tests.support.strategies import EVENTS, ROUTING, TEXT


@given(ROUTING)
def test_decoding_a_token_undoes_encoding(value: str) -> None:
    assert decode_token(encode_token(value)) == value


@given(ROUTING)
def test_a_token_is_one_literal_that_nats_takes(value: str) -> None:
    token = encode_token(value)
    assert ENCODED_TOKEN.fullmatch(token)
    assert token != NONE
    assert len(token) <= MAX_TOKEN_BYTES


@given(ROUTING, ROUTING)
def test_two_values_never_share_a_token(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) is (one == other)


@given(st.text("ab%25F_.*E0", max_size=8) | TEXT)
def test_a_text_that_decodes_is_the_one_that_encodes(token: str) -> None:
    try:
        value = decode_token(token)
    except EventError:
        return
    assert token == (NONE if value is None else encode_token(value))


def test_no_value_is_the_token_for_none() -> None:
    assert decode_token(NONE) is None


@pytest.mark.parametrize("value", ["\ud800", "a\udfff", "\ud83d \ude00"])
def test_half_of_a_surrogate_pair_is_no_value(value: str) -> None:
    with pytest.raises(EventError, match="surrogate"):
        encode_token(value)


def test_a_huge_value_is_refused_with_a_short_message() -> None:
    with pytest.raises(EventError, match="use a shorter id") as caught:
        encode_token("x" * 5_000_000)
    assert len(caught.value.message) < 200


@given(EVENTS)
def test_every_event_has_a_subject_within_the_limits(event: Event) -> None:
    subject = event.subject
    assert is_subject(subject)
    assert len(subject) <= 512


def test_a_subject_has_at_most_512_bytes() -> None:
    values = {"entity": "e" * 128, "user": "u" * 128}
    longest = subject_of("agent:task:started", "s" * 128, **values, session="x" * 106)
    assert len(longest) == 512
    assert is_subject(longest)
    assert not is_subject(longest + "x")
    with pytest.raises(EventError, match="at most 512"):
        subject_of("agent:task:started", "s" * 128, **values, session="x" * 107)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b.c.d.e.f",
        "a.b.c.d.e.f.g.h",
        "a.b.c.d.e.f.*",
        "a.b.c.d.e.f.>",
        "a..c.d.e.f.g",
        "a.b.c.d.e.f.g\n",
        "a.b.c.d.e.f.%2e",
        "a.b.c.d.e.f.é",
        "a.b.c.d.e.f." + "g" * 129,
    ],
)
def test_what_is_not_seven_literal_tokens_is_no_subject(text: str) -> None:
    assert not is_subject(text)


def test_a_type_of_two_tokens_has_none_for_a_third() -> None:
    assert type_tokens("agent:created") == ("agent", "created", NONE)
    assert type_tokens("agent:task:started") == ("agent", "task", "started")


@pytest.mark.parametrize(
    "text",
    ["", "agent", "a:b:c:d", "Agent:created", "agent:", ":created", "agent:_", "a:b\n", "a:-b"],
)
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(EventError, match="no event type"):
        type_tokens(text)
