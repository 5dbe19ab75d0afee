"""Whatever a client sends is a request or an error with a code; nothing else comes out."""

from __future__ import annotations

import json
import time
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.schema import wire
from jarvis_mesh.schema.errors import BadRequestError, ForbiddenError, MeshError, UnknownOpError
from jarvis_mesh.schema.event import MetadataWithUnknown
from tests.support.strategies import JSON_VALUES, TEXT

OPS = ["auth", "subscribe", "unsubscribe", "publish", "request", "ping"]
KEYS = [
    *("op", "id", "sub", "channels", "since", "conflate_ms", "event", "token", "service"),
    *("method", "data", "timeout_ms", "type", "payload", "metadata", "user"),
]
ANYTHING = (
    JSON_VALUES
    | st.sampled_from(OPS)
    | st.integers()
    | st.floats()
    | st.binary(max_size=4)
    | st.just(cbor2.undefined)
)
NESTED = st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5)
MESSAGES = st.dictionaries(st.sampled_from(KEYS), ANYTHING | NESTED, max_size=6).flatmap(
    lambda message: st.sampled_from(OPS).map(lambda op: {**message, "op": op})
)


@given(MESSAGES | ANYTHING | NESTED)
def test_any_value_is_a_request_or_a_mesh_error_that_can_be_sent(value: Any) -> None:
    try:
        wire.parse_request(value)
    except MeshError as error:
        answer = wire.Error.of(error, id=wire.request_id(value), sub=wire.request_sub(value))
        assert wire.parse_notice(json.loads(wire.encode_json(answer))) == answer
        assert wire.parse_notice(cbor2.loads(wire.encode_cbor(answer))) == answer


@given(MESSAGES | ANYTHING | NESTED)
def test_any_value_is_a_notice_or_a_mesh_error(value: Any) -> None:
    try:
        wire.parse_notice(value)
    except MeshError as error:
        assert error.message  # noqa: PT017 - some don't raise


@given(
    st.binary(max_size=40)
    | st.text(max_size=40)
    | st.text('{}[]",:0123456789eE+-.nul\\', max_size=12)
)
def test_any_line_is_json_or_a_bad_request(line: bytes | str) -> None:
    try:
        value = wire.decode_json(line)
    except BadRequestError as error:
        error.message.encode()
    else:
        json.dumps(value).encode()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        '{"op":"ping"} x',
        '{"op":"ping",}',
        "NaN",
        "Infinity",
        "1e400",
        "9" * 5_000,
        "[" * 60_000,
        '{"a":' * 30_000,
        '"\\ud800"',
        '"\ud800"',
        b'"\xff"',
        b"\x00" * 1_000_000,
        "\ufeff{}",
    ],
    ids=range(15),
)
def test_a_hostile_line_is_a_bad_request_with_a_short_message(line: bytes | str) -> None:
    with pytest.raises(BadRequestError, match=r"^not JSON: ") as caught:
        wire.decode_json(line)
    assert len(caught.value.message) < 200


@given(JSON_VALUES)
def test_reading_json_undoes_writing_it(value: object) -> None:
    assert wire.decode_json(msgspec.json.encode(value)) == value


@given(TEXT)
def test_an_id_is_echoed_if_it_is_short(text: str) -> None:
    expected = text if len(text.encode()) <= wire.MAX_ID_BYTES else None
    assert wire.request_id({"id": text}) == expected


def test_the_id_of_a_message_is_echoed_whatever_else_is_wrong_with_it() -> None:
    assert wire.request_id({"op": 7, "id": "a"}) == "a"
    assert wire.request_id({"id": 0}) == 0
    for nothing in ({"id": True}, {"id": 2**53}, {"id": "x" * 65}, {"id": None}, [1], "id", None):
        assert wire.request_id(nothing) is None


def test_unknown_metadata_of_a_published_event_is_kept() -> None:
    event = {"type": "a:b", "payload": 1, "metadata": {"session": "s", "region": "eu"}}
    request = wire.parse_request({"op": "publish", "event": event})
    assert isinstance(request, wire.Publish)
    assert isinstance(request.event.metadata, MetadataWithUnknown)
    assert request.event.metadata.unknown == {"region": "eu"}
    assert request.event.metadata.session == "s"


def test_unknown_keys_of_a_message_are_ignored() -> None:
    assert wire.parse_request({"op": "ping", "id": 1, "future": [1]}) == wire.Ping(id=1)
    assert wire.parse_notice({"op": "pong", "id": 1, "future": [1]}) == wire.Pong(id=1)


def test_an_unknown_op_of_a_gateway_can_be_told_from_a_malformed_message() -> None:
    with pytest.raises(UnknownOpError):
        wire.parse_notice({"op": "from the future"})
    with pytest.raises(BadRequestError) as caught:
        wire.parse_notice({"op": "pong", "id": []})
    assert not isinstance(caught.value, UnknownOpError)


def test_an_error_becomes_the_message_that_tells_of_it() -> None:
    message = wire.Error.of(ForbiddenError("not yours"), id=3, sub="a")
    assert json.loads(wire.encode_json(message)) == {
        "op": "error",
        "id": 3,
        "sub": "a",
        "code": "forbidden",
        "message": "not yours",
        "retryable": False,
    }


def test_a_message_in_json_is_one_line() -> None:
    assert b"\n" not in wire.encode_json(wire.Unsubscribed(sub="a\nb"))


@pytest.mark.parametrize("number", ["1e308", "-1e-308", "5e-324", "1.7976931348623157e308"])
def test_no_number_takes_long_to_read(number: str) -> None:
    """The library's own way takes 9 µs for one of these, half a second for so many."""
    started = time.process_time()
    assert wire.decode_json(f"[{','.join([number] * 60_000)}]")[0] == float(number)
    assert time.process_time() - started < 0.25
