"""An event is read, checked and written without losing anything."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given

from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.event import Event, Metadata, check_event, new_id, parse_event
from tests.support.strategies import EVENTS, TIMES

ID = "018bcfe5-6800-7abc-8def-0123456789ab"
LEAST: dict[str, Any] = {
    "id": ID,
    "type": "agent:created",
    "source": "agent-service",
    "timestamp": 1_700_000_000_000,
    "payload": {"agentId": "agent-7"},
    "metadata": {},
}


def event(**changes: Any) -> Event:
    return Event(**{**LEAST, "metadata": Metadata(), **changes})


@given(EVENTS)
def test_parsing_undoes_writing(event: Event) -> None:
    assert parse_event(event.to_map()) == event


@given(EVENTS)
def test_json_undoes_json(event: Event) -> None:
    encoded = msgspec.json.encode(event.to_map())
    assert parse_event(msgspec.json.decode(encoded)).to_map() == event.to_map()


def test_keys_are_written_in_the_protocol_s_order_whatever_order_they_came_in() -> None:
    metadata = dict.fromkeys(["base", "traceparent", "entity", "session", "user"], "x")
    backwards = {"future": 1, "metadata": {"zone": "z", "priority": "low", **metadata}}
    backwards |= dict(reversed(list(LEAST.items()))) | {"metadata": backwards["metadata"]}
    written = parse_event(backwards).to_map()
    assert list(written) == [*LEAST, "future"]
    assert list(written["metadata"]) == [
        *("user", "session", "entity", "priority", "traceparent", "base"),
        "zone",
    ]


def test_unknown_keys_are_kept_even_one_called_unknown() -> None:
    value = {**LEAST, "metadata": {"user": "u", "unknown": {"a": 1}}, "unknown": [1], "v": None}
    assert json.dumps(parse_event(value).to_map()) == json.dumps(value)


def test_payload_keys_keep_their_order() -> None:
    payload = {"z": 1, "agentId": "a", "b": {"y": 1, "x": 2}}
    assert json.dumps(parse_event({**LEAST, "payload": payload}).payload) == json.dumps(payload)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": "now"}, "timestamp: expected int, got str"),
        ({"metadata": {"user": 7}}, "metadata.user: expected str"),
        ({"metadata": {"user": None}}, "metadata.user: null; leave the key out"),
        ({"metadata": {"region": b"x"}}, "metadata.region: bytes"),
        ({"future": float("nan")}, "event.future: nan"),
        ({"id": "x" * 1_000}, "no UUIDv7"),
        ({"payload": {"list": [0, b""]}}, r"payload.list\[1\]: bytes"),
        ({"source": ""}, "empty string is no routing value"),
    ],
)
def test_an_error_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EventError, match=message):
        parse_event({**LEAST, **change})


def test_an_event_made_in_python_with_wrong_types_is_refused_by_name() -> None:
    wrong: Any = 7
    with pytest.raises(EventError, match=r"metadata\.user: int instead of text"):
        check_event(event(metadata=Metadata(user=wrong)))
    with pytest.raises(EventError, match=r"metadata\.traceparent: .*surrogate"):
        check_event(event(metadata=Metadata(traceparent="\ud800")))


def test_an_event_can_t_be_changed() -> None:
    with pytest.raises(AttributeError):
        event().source = "other"  # type: ignore[misc]


@given(TIMES)
def test_a_new_id_is_a_uuid7_that_holds_its_time(time_ms: int) -> None:
    made = UUID(new_id(time_ms))
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == time_ms % 2**48


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id(1) for _ in range(10_000)}) == 10_000
