"""What claims grant, and that nothing goes beyond it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.access import ANYBODY, MAX_GRANTS, Grants, filters_for, grants_of
from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.errors import (
    BadRequestError,
    ChannelError,
    ForbiddenError,
    LimitError,
    UnauthorizedError,
)
from jarvis_mesh.schema.filters import ANY, Filter
from tests.support.strategies import CHANNELS, FILTERS, SUBJECTS

CLAIMS = {"sub": "alice", "exp": 2_000_000_000}


def grants(**mesh: object) -> Grants:
    return grants_of(CLAIMS | {"mesh": mesh})


def test_without_more_a_user_has_his_own_events_and_can_say_nothing() -> None:
    own = grants_of(CLAIMS)
    assert own.user == "alice"
    assert [each.pattern for each in own.subscribe] == ["*.*.*.*.*.alice.*"]
    assert own.publish == own.request == ()
    assert own.expires == 2_000_000_000
    assert own.issued == -math.inf
    with pytest.raises(ForbiddenError, match="publish on"):
        own.check_publish("agent.created._.client.a.alice._")
    with pytest.raises(ForbiddenError, match=r"call terminal\.write"):
        own.check_request("terminal", "write")


def test_a_user_whose_name_looks_like_a_wildcard_has_no_other_users_events() -> None:
    for name, token in (("*", "%2A"), (">", "%3E"), ("_", "%5F"), ("a.b", "a%2Eb")):
        (own,) = grants_of(CLAIMS | {"sub": name}).subscribe
        assert own.pattern == f"*.*.*.*.*.{token}.*"


@pytest.mark.parametrize("sub", [None, "", 7, ["alice"], "x" * 129, "é" * 50, "\ud800"])
def test_a_sub_that_is_no_user_is_refused(sub: object) -> None:
    with pytest.raises(UnauthorizedError, match="sub"):
        grants_of(CLAIMS | {"sub": sub})


@pytest.mark.parametrize(
    "mesh",
    [
        [],
        "all",
        None,
        {"subscribe": "all"},
        {"subscribe": [1]},
        {"subscribe": None},
        {"subscribe": ["topic:x"]},
        {"publish": ["event:"]},
        {"request": ["terminal"]},
        {"request": ["terminal.write.x"]},
        {"request": ["term*.write"]},
        {"subscribe": ["all"] * (MAX_GRANTS + 1)},
    ],
)
def test_a_mesh_claim_that_isnt_as_it_should_be_is_refused(mesh: object) -> None:
    with pytest.raises(UnauthorizedError, match="the token's mesh"):
        grants_of(CLAIMS | {"mesh": mesh})


def test_an_empty_list_of_channels_grants_nothing() -> None:
    with pytest.raises(ForbiddenError):
        filters_for(["all"], grants(subscribe=[]))


def test_all_is_what_is_granted() -> None:
    both = grants(subscribe=["user:alice", "shared"])
    assert [each.pattern for each in filters_for(["all"], both)] == [
        "*.*.*.*.*.alice.*",
        "*.*.*.*.*._.*",
    ]


def test_another_users_channel_is_forbidden() -> None:
    with pytest.raises(ForbiddenError, match="granted"):
        filters_for(["user:bob"], grants_of(CLAIMS))


def test_what_is_wrong_with_the_channels_is_said() -> None:
    with pytest.raises(BadRequestError, match="at least one"):
        filters_for([], ANYBODY)
    with pytest.raises(ChannelError):
        filters_for(["topic:x"], ANYBODY)
    with pytest.raises(LimitError, match="100 channels"):
        filters_for(["all"] * 101, ANYBODY)


def test_64_grants_times_100_channels_are_refused_by_their_number() -> None:
    many = grants(subscribe=[f"entity:e{number}" for number in range(MAX_GRANTS)])
    with pytest.raises(LimitError, match="64 filters"):
        filters_for([f"session:s{number}" for number in range(100)], many)


@given(st.lists(CHANNELS, min_size=1, max_size=5), st.lists(CHANNELS, max_size=5), SUBJECTS)
def test_only_what_was_asked_for_and_granted_passes(
    asked: list[str], granted: list[str], tokens: tuple[str, ...]
) -> None:
    wanted = any(parse_channel(each).matches(tokens) for each in asked)
    allowed = any(parse_channel(each).matches(tokens) for each in granted)
    try:
        effective: tuple[Filter, ...] = filters_for(asked, grants(subscribe=granted))
    except ForbiddenError:
        effective = ()
    assert any(each.matches(tokens) for each in effective) == (wanted and allowed)


@given(st.lists(FILTERS, min_size=1, max_size=4), st.lists(CHANNELS, max_size=4), SUBJECTS)
def test_what_new_grants_cover_they_grant(
    used: list[Filter], granted: list[str], tokens: tuple[str, ...]
) -> None:
    new = grants(subscribe=granted)
    if new.covers(used) and any(each.matches(tokens) for each in used):
        assert any(each.matches(tokens) for each in new.subscribe)


def test_an_event_may_be_published_within_a_grant() -> None:
    may = grants(publish=["event:agent:**&session:s-42"])
    may.check_publish("agent.status._.client.a.alice.s-42")
    for subject in ("agent.status._.client.a.alice.s-43", "model.usage._.client.m.alice.s-42"):
        with pytest.raises(ForbiddenError):
            may.check_publish(subject)


@pytest.mark.parametrize(
    ("pattern", "passes"),
    [
        ("terminal.write", {"terminal.write"}),
        ("terminal.*", {"terminal.write", "terminal.close"}),
        ("terminal.>", {"terminal.write", "terminal.close"}),
        ("*.write", {"terminal.write", "agent.write"}),
        ("*.*", {"terminal.write", "terminal.close", "agent.write"}),
        (">", {"terminal.write", "terminal.close", "agent.write"}),
    ],
)
def test_a_service_may_be_called_within_a_grant(pattern: str, passes: set[str]) -> None:
    may = grants(request=[pattern])
    for name in ("terminal.write", "terminal.close", "agent.write"):
        service, method = name.split(".")
        if name in passes:
            may.check_request(service, method)
        else:
            with pytest.raises(ForbiddenError):
                may.check_request(service, method)


def test_without_authentication_everything_is_granted_but_services() -> None:
    assert filters_for(["all"], ANYBODY) == (ANY,)
    ANYBODY.check_publish("agent.created._.client.a._._")
    ANYBODY.check_operator()
    with pytest.raises(ForbiddenError, match="without authentication"):
        ANYBODY.check_request("terminal", "write")


def test_an_operator_is_who_may_see_everything() -> None:
    grants(subscribe=["user:alice", "all"]).check_operator()
    with pytest.raises(ForbiddenError, match="operators"):
        grants_of(CLAIMS).check_operator()
