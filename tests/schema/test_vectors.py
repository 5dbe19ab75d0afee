"""Our own code obeys schema/vectors, which TypeScript and others obey too."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import cbor2
import msgspec
import pytest

from jarvis_mesh.schema import codec, wire
from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.cursor import AtTime, Cursor, SecondsAgo, Since, Start, parse_cursor
from jarvis_mesh.schema.cursor import parse_since as parse
from jarvis_mesh.schema.errors import EventError, MeshError
from jarvis_mesh.schema.event import parse_event
from jarvis_mesh.schema.filters import Filter, permitted
from jarvis_mesh.schema.subjects import decode_token, encode_token

Case = dict[str, Any]


def cases(file: str, part: str) -> pytest.MarkDecorator:
    """Return the mark that runs a test once for every case of a part of a file."""
    text = files("jarvis_mesh.schema").joinpath("vectors", file).read_text("utf-8")
    found: list[Case] = json.loads(text)[part]
    assert found
    return pytest.mark.parametrize("case", found, ids=[_id(case) for case in found])


def _id(case: Case) -> str:
    return ascii(case.get("name") or case.get("why") or next(iter(case.values())))[:60]


def refused(case: Case, call: Callable[..., object], key: str) -> None:
    with pytest.raises(MeshError) as caught:
        call(case[key])
    assert caught.value.code == case["code"]


def pattern(text: str) -> Filter:
    return Filter(tuple(text.split(".")))


@cases("channels.json", "accepted")
def test_channel_is_its_filter(case: Case) -> None:
    assert parse_channel(case["channel"]).pattern == case["filter"]


@cases("channels.json", "refused")
def test_what_is_no_channel_is_refused(case: Case) -> None:
    refused(case, parse_channel, "channel")


@cases("tokens.json", "values")
def test_value_and_token_stand_for_each_other(case: Case) -> None:
    assert encode_token(case["value"]) == case["token"]
    assert decode_token(case["token"]) == case["value"]


@cases("tokens.json", "refused_values")
def test_value_without_a_token_is_refused(case: Case) -> None:
    refused(case, encode_token, "value")


@cases("tokens.json", "refused_tokens")
def test_token_without_a_value_is_refused(case: Case) -> None:
    with pytest.raises(EventError):
        decode_token(case["token"])


@cases("filters.json", "intersections")
def test_intersection_is_the_same_from_both_sides(case: Case) -> None:
    a, b = pattern(case["a"]), pattern(case["b"])
    both = None if case["both"] is None else pattern(case["both"])
    assert a.intersect(b) == both
    assert b.intersect(a) == both


@cases("filters.json", "covers")
def test_covers(case: Case) -> None:
    assert pattern(case["a"]).covers(pattern(case["b"])) is case["a_covers_b"]


@cases("filters.json", "matches")
def test_matches(case: Case) -> None:
    assert pattern(case["filter"]).matches(case["subject"].split(".")) is case["passes"]


@cases("filters.json", "permitted")
def test_permitted(case: Case) -> None:
    remains = permitted(map(pattern, case["asked"]), map(pattern, case["granted"]))
    assert [str(each) for each in remains] == case["remains"]


@cases("filters.json", "refused")
def test_what_is_no_filter_cannot_be_built(case: Case) -> None:
    with pytest.raises(ValueError, match="filter"):
        pattern(case["pattern"])


@cases("cursors.json", "accepted")
def test_cursor_and_text_stand_for_each_other(case: Case) -> None:
    cursor = Cursor(case["epoch"], case["seq"])
    assert parse_cursor(case["text"]) == cursor
    assert str(cursor) == case["text"]


@cases("cursors.json", "refused")
def test_what_is_no_cursor_is_refused(case: Case) -> None:
    refused(case, parse_cursor, "text")


@cases("since.json", "accepted")
def test_since_means(case: Case) -> None:
    assert _meaning(parse(case["since"])) == (case["means"], case["value"])


def _meaning(since: Since) -> tuple[str, object]:
    match since:
        case Start():
            return since.value, None
        case Cursor():
            return "cursor", str(since)
        case SecondsAgo():
            return "seconds", since.seconds
        case AtTime():
            return "time", since.time.isoformat()


@cases("since.json", "refused")
def test_what_is_no_since_is_refused(case: Case) -> None:
    refused(case, parse, "since")


@cases("events.json", "events")
def test_event_has_one_subject_and_these_bytes(case: Case) -> None:
    event = parse_event(case["event"])
    assert event.subject == case["subject"]
    assert event.to_map() == case["event"]
    assert cbor2.dumps(event.to_map()).hex() == case["cbor"]
    assert codec.decode_body(bytes.fromhex(case["cbor"])) == event


@cases("events.json", "events")
def test_event_keeps_the_order_of_its_keys(case: Case) -> None:
    event = codec.decode_body(bytes.fromhex(case["cbor"]))
    assert json.dumps(event.to_map()) == json.dumps(case["event"])


@cases("events.json", "bodies")
def test_body_holds_the_event(case: Case) -> None:
    assert codec.decode_body(bytes.fromhex(case["body"])).to_map() == case["event"]


@cases("events.json", "invalid")
def test_body_without_a_valid_event_is_refused(case: Case) -> None:
    refused(case, lambda text: codec.decode_body(bytes.fromhex(text)), "body")


@cases("wire.json", "requests")
def test_request_is_the_same_in_both_forms(case: Case) -> None:
    request = wire.parse_request(case["json"])
    assert wire.parse_request(cbor2.loads(bytes.fromhex(case["cbor"]))) == request


@cases("wire.json", "refused_requests")
def test_refused_request_says_the_code_and_echoes_the_id(case: Case) -> None:
    refused(case, wire.parse_request, "message")
    assert wire.request_id(case["message"]) == case["echo"]


@cases("wire.json", "notices")
def test_notice_and_both_forms_stand_for_each_other(case: Case) -> None:
    notice = wire.parse_notice(case["json"])
    assert json.loads(wire.encode_json(notice)) == case["json"]
    assert cbor2.loads(wire.encode_cbor(notice)) == case["json"]
    assert wire.parse_notice(cbor2.loads(bytes.fromhex(case["cbor"]))) == notice


@cases("wire.json", "events")
def test_event_message_holds_the_same_event_in_both_forms(case: Case) -> None:
    seq, body, *sub = cbor2.loads(bytes.fromhex(case["cbor"]))
    assert (seq, body.hex(), *sub) == (case["seq"], case["body"], *_sub(case))
    event = codec.decode_body(body)
    expected = {"op": "event", "seq": seq, "event": event.to_map()}
    assert case["json"] == expected | ({"sub": sub[0]} if sub else {})
    assert msgspec.json.decode(msgspec.json.encode(event.to_map())) == case["json"]["event"]


def _sub(case: Case) -> list[str]:
    return [case["sub"]] if "sub" in case else []
