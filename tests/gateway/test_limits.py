"""What is counted by address and by user: refused beyond the limit, and always given back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway import limits
from jarvis_mesh.gateway.limits import ClientLimits, Replay, Visit
from jarvis_mesh.gateway.metrics import LIMITS, Metrics
from jarvis_mesh.gateway.over_limit import BeyondError, BusyError
from tests.support.clock import ManualClock


def made(clock: ManualClock | None = None, **settings: Any) -> ClientLimits:
    return ClientLimits(Settings(**settings), clock or ManualClock())


def refused(error: pytest.ExceptionInfo[BusyError]) -> str:
    """Return the name of the limit, having looked whether it is counted."""
    metrics = Metrics()
    metrics.refused(error.value)
    text = metrics.render().decode()
    assert f'mesh_refusals_total{{reason="{error.value.limit}"}} 1.0' in text
    assert error.value.retryable
    return error.value.limit


def test_an_address_has_only_so_many_connections() -> None:
    counted = made(max_connections_per_address=2)
    visits = [counted.visit("192.0.2.1", None) for _ in range(2)]
    with pytest.raises(BusyError, match="2 connections from one address") as error:
        counted.visit("192.0.2.1", None)
    assert refused(error) == "connections_address"
    counted.visit("192.0.2.2", None)
    visits[0].end()
    visits[0].end()
    counted.visit("192.0.2.1", None)


def test_a_user_has_only_so_many_connections_whenever_he_says_who_he_is() -> None:
    counted = made(max_connections_per_user=1)
    first = counted.visit(None, "alice")
    first.identify("alice")
    with pytest.raises(BusyError, match="1 connections of one user") as error:
        counted.visit("192.0.2.1", "alice")
    assert refused(error) == "connections_user"
    assert not counted.by_address
    late = counted.visit("192.0.2.1", None)
    with pytest.raises(BusyError):
        late.identify("alice")
    first.end()
    late.identify("alice")


def test_replays_are_counted_by_user_else_by_address() -> None:
    counted = made(max_replays=1)
    visit = counted.visit("192.0.2.1", "alice")
    replay = visit.begin_replay()
    assert isinstance(replay, Replay)
    with pytest.raises(BusyError, match="1 replays at once") as error:
        counted.visit("192.0.2.2", "alice").begin_replay()
    assert refused(error) == "replays"
    assert isinstance(counted.visit("192.0.2.1", None).begin_replay(), Replay)
    assert counted.visit(None, None).begin_replay() is None
    replay.end()
    replay.end()
    assert isinstance(visit.begin_replay(), Replay)


async def test_requests_of_an_address_have_a_rate() -> None:
    clock = ManualClock()
    counted = made(clock, requests_per_second=2)
    for _ in range(20):
        counted.knock("192.0.2.1")
    with pytest.raises(BusyError, match="2 requests a second") as error:
        counted.knock("192.0.2.1")
    assert refused(error) == "requests"
    counted.knock("192.0.2.2")
    counted.knock(None)
    await clock.advance(1)
    counted.knock("192.0.2.1")


async def test_addresses_are_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 10)
    clock = ManualClock()
    counted = made(clock)
    for number in range(100):
        counted.knock(f"192.0.2.{number}")
        if number == 50:
            await clock.advance(60)
    assert len(counted._buckets) <= 10


@pytest.mark.parametrize(
    ("peer", "forwarded", "loopback", "key"),
    [
        ("127.0.0.1", [], False, None),
        ("::1", [], False, None),
        ("127.0.0.1", [], True, "127.0.0.1"),
        ("192.0.2.1", ["203.0.113.9"], False, "192.0.2.1"),
        ("10.0.0.9", ["203.0.113.9"], False, "203.0.113.9"),
        ("10.0.0.9", ["127.0.0.1, 203.0.113.9"], False, "203.0.113.9"),
        ("2001:db8::1", [], False, "2001:db8::/64"),
        (None, [], True, None),
        ("", [], False, ""),
    ],
)
def test_as_what_a_client_is_counted(
    peer: str | None, forwarded: list[str], loopback: bool, key: str | None
) -> None:
    counted = made(trusted_proxies=("10.0.0.0/8",), limit_loopback=loopback)
    assert counted.address_of(peer, forwarded) == key


def test_every_limit_has_a_name_that_is_counted() -> None:
    metrics = Metrics()
    for name in LIMITS:
        metrics.refused(BusyError(name, ""))
        metrics.refused(BeyondError(name, ""))
        assert f'reason="{name}"}} 2.0' in metrics.render().decode()


STEPS = st.lists(
    st.tuples(st.sampled_from(["visit", "identify", "replay", "end"]), st.integers(0, 5)),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_all_is_given_back(steps: list[tuple[str, int]]) -> None:
    counted = made(max_connections_per_address=3, max_connections_per_user=2, max_replays=2)
    visits: list[Visit] = []
    replays: list[Replay] = []
    for step, number in steps:
        try:
            if step == "visit":
                visits.append(counted.visit("ab"[number % 2], ["x", "y", None][number % 3]))
            elif visits and step == "identify":
                visits[number % len(visits)].identify("xy"[number % 2])
            elif (
                visits
                and step == "replay"
                and (replay := visits[number % len(visits)].begin_replay())
            ):
                replays.append(replay)
            elif visits and step == "end":
                visits[number % len(visits)].end()
        except BusyError:
            pass
        assert max(counted.by_address.values(), default=0) <= 3
        assert max(counted.by_user.values(), default=0) <= 2
        assert max(counted.replays.values(), default=0) <= 2
    for each in (*visits, *replays):
        each.end()
    assert not counted.by_address
    assert not counted.by_user
    assert not counted.replays
