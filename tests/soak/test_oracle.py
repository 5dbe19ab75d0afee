"""The judge is judged: it must see every broken promise, and none where all were kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.oracle import Reading
from tests.support.subscription import (
    CURSOR,
    DUPLICATE,
    FOREIGN,
    ORDER,
    PROTOCOL,
    Message,
    Subscription,
    Violation,
)

WELCOME: Message = {"op": "welcome", "protocol": 1, "cursor": "1:5"}
ALL, MINE = "*.*.*.*.*.*.*", "*.*.*.*.*.u1.*"


def event(seq: int, sub: str | None = None, *, user: str = "u1") -> Message:
    content = {"id": f"e{seq}", "type": "agent:created", "source": "s", "metadata": {"user": user}}
    return {"op": "event", "seq": seq, "event": content} | ({"sub": sub} if sub else {})


def subscribed(sub: str, seq: int, pattern: str = ALL) -> Message:
    return {"op": "subscribed", "sub": sub, "filters": [pattern], "cursor": f"1:{seq}"}


def live(seq: int, sub: str | None = None, replayed: int = 0) -> Message:
    named = {"sub": sub, "replayed": replayed} if sub else {}
    return {"op": "live", "cursor": f"1:{seq}", **named}


def heartbeat(seq: int) -> Message:
    return {"op": "heartbeat", "cursor": f"1:{seq}"}


def gap(sub: str, from_seq: int, to: int | None, reason: str, cursor: str) -> Message:
    end = {} if to is None else {"to": to}
    return {"op": "gap", "sub": sub, "from": from_seq, "reason": reason, "cursor": cursor, **end}


class Case:
    """One connection: `all` from now, `mine` with events of u1 from a cursor or the start."""

    def __init__(self, mine_since: Any = "start") -> None:
        self.subs = {"all": Subscription(["all"]), "mine": Subscription(["user:u1"], mine_since)}
        self.violations: list[Violation] = []
        self.reading = Reading(self.subs, "the test", self.violations.append, {})

    def take(self, *messages: Message) -> list[str]:
        """Return what is blamed."""
        for message in messages:
            self.reading.take(message)
        return [violation.kind for violation in self.violations]


BEGIN = (WELCOME, subscribed("all", 5), subscribed("mine", 0, MINE))


def test_a_flawless_connection_is_blamed_for_nothing() -> None:
    case = Case()
    assert not case.take(
        *BEGIN,
        event(2, "mine"),
        event(6),
        event(6, "mine"),
        event(7, user="u2"),
        live(7, "mine", replayed=2),
        event(8),
        heartbeat(10),
        {"op": "lagging", "behind": 3},
        event(11, user="u2"),
        event(12),
        live(14),
        event(15),
        {"op": "closing", "reason": "draining", "retry_ms": 5},
    )
    assert case.subs["all"].received == [6, 7, 8, 11, 12, 15]
    assert case.subs["mine"].received == [2, 6, 8, 12, 15]
    assert case.subs["mine"].cursor == "1:15"


def test_an_untagged_event_is_not_for_who_had_it_from_a_replay() -> None:
    case = Case()
    assert not case.take(*BEGIN, event(9, "mine"), live(9, "mine", replayed=1), event(8))
    assert case.subs["mine"].received == [9]
    assert case.subs["all"].received == [8]


def test_while_lagging_only_an_event_of_its_own_moves_a_cursor() -> None:
    case = Case()
    begin = (*BEGIN, live(5, "mine"), {"op": "lagging", "behind": 1})
    assert not case.take(*begin, event(6, user="u2"))
    assert (case.subs["all"].cursor, case.subs["mine"].cursor) == ("1:6", "1:5")


def test_an_epoch_gap_begins_another_log() -> None:
    case = Case()
    assert not case.take(
        *BEGIN, event(3, "mine"), gap("mine", 4, None, "epoch", "2:0"), event(1, "mine")
    )
    assert [(span.epoch, span.received) for span in case.subs["mine"].spans] == [
        ("1", [3]),
        ("2", [1]),
    ]


LIVE = (*BEGIN, live(5, "mine"))


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        pytest.param(PROTOCOL, [subscribed("all", 5)], id="no welcome"),
        pytest.param(PROTOCOL, [WELCOME, WELCOME], id="two welcomes"),
        pytest.param(PROTOCOL, [WELCOME, event(3, "mine")], id="not open"),
        pytest.param(FOREIGN, [WELCOME, subscribed("all", 5, MINE)], id="other filters"),
        pytest.param(DUPLICATE, [*BEGIN, event(2, "mine"), event(2, "mine")], id="twice"),
        pytest.param(ORDER, [*BEGIN, event(3, "mine"), event(2, "mine")], id="replay backwards"),
        pytest.param(ORDER, [*LIVE, event(7), event(6)], id="live backwards"),
        pytest.param(ORDER, [*LIVE, event(7), event(7)], id="live twice"),
        pytest.param(PROTOCOL, [*LIVE, event(6, "mine")], id="tagged though live"),
        pytest.param(FOREIGN, [*BEGIN, event(2, "mine", user="u2")], id="not asked for"),
        pytest.param(CURSOR, [*BEGIN, event(7), live(6, "mine")], id="live below untagged"),
        pytest.param(PROTOCOL, [*BEGIN, live(6, "mine", replayed=1)], id="replayed is wrong"),
        pytest.param(CURSOR, [*LIVE, heartbeat(9), heartbeat(8)], id="heartbeat backwards"),
        pytest.param(CURSOR, [*LIVE, event(9), heartbeat(8)], id="heartbeat below an event"),
        pytest.param(PROTOCOL, [*LIVE, live(9)], id="live again"),
        pytest.param(
            PROTOCOL,
            [*LIVE, {"op": "lagging", "behind": 1}, heartbeat(9)],
            id="heartbeat while lagging",
        ),
        pytest.param(
            PROTOCOL,
            [*BEGIN, {"op": "lagging", "behind": 1}, event(3, "mine")],
            id="replay while lagging",
        ),
        pytest.param(
            CURSOR,
            [*BEGIN, event(3, "mine"), gap("mine", 3, 4, "expired", "1:4")],
            id="gap over what came",
        ),
        pytest.param(
            CURSOR, [*BEGIN, gap("mine", 1, 4, "expired", "1:3")], id="gap beyond its cursor"
        ),
        pytest.param(
            PROTOCOL, [*LIVE, gap("all", 6, 7, "expired", "1:7")], id="gap though keeping up"
        ),
        pytest.param(CURSOR, [*BEGIN, gap("mine", 1, None, "epoch", "1:0")], id="no other epoch"),
        pytest.param(
            PROTOCOL,
            [*BEGIN, {"op": "error", "code": "internal", "message": "", "retryable": False}],
            id="error",
        ),
        pytest.param(
            PROTOCOL,
            [*BEGIN, {"op": "closing", "reason": "draining", "retry_ms": 1}, event(6)],
            id="after closing",
        ),
    ],
)
def test_a_broken_promise_is_seen(kind: str, messages: list[Message]) -> None:
    assert set(Case().take(*messages)) == {kind}


def test_resuming_elsewhere_than_at_the_cursor_is_seen() -> None:
    case = Case()
    case.take(*BEGIN, event(3, "mine"))
    again: list[Violation] = []
    reading = Reading(case.subs, "the second connection", again.append, {})
    for message in (WELCOME, subscribed("mine", 4, MINE)):
        reading.take(message)
    assert [violation.kind for violation in again] == [CURSOR]


def test_a_sequence_that_is_another_event_is_seen() -> None:
    case = Case()
    case.take(*BEGIN, event(6))
    changed = event(6, "mine")
    changed["event"]["id"] = "another"
    assert case.take(changed) == [FOREIGN]
