"""What counts as a copy of the log, and what counts as readable."""

from __future__ import annotations

import json

import cbor2
import pytest
import zstandard

from jarvis_mesh.gateway.stored_event import Place, StoredEvent, place_in_log
from jarvis_mesh.schema import decode_body, encode_body
from jarvis_mesh.schema.codec import MAX_PLAIN_BYTES
from tests.support.publishing import make_event
from tests.support.stored import stored, unreadable

SUBJECT = "agent.created._.tests._._._"


def headers(*lines: str) -> bytes:
    return ("NATS/1.0\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


GOOD = ("Nats-Stream: EVENTS", f"Nats-Subject: {SUBJECT}", "Nats-Sequence: 7")


def test_the_place_is_what_the_server_says() -> None:
    assert place_in_log(headers("Nats-Msg-Id: x", *GOOD)) == Place(SUBJECT, 7)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        GOOD[:2],
        GOOD[1:],
        ("Nats-Stream: OTHER", *GOOD[1:]),
        (*GOOD[:2], "Nats-Sequence: -7"),
        (*GOOD[:2], "Nats-Sequence: ٧"),
    ],
)
def test_anything_else_is_no_copy(lines: tuple[str, ...]) -> None:
    assert place_in_log(headers(*lines)) is None


def test_forged_headers_lose_to_the_servers_which_come_last() -> None:
    forged = ("Nats-Stream: EVENTS", "Nats-Subject: a.b.c.d.e.f.g", "Nats-Sequence: 99")
    assert place_in_log(headers(*forged, *GOOD)) == Place(SUBJECT, 7)


@pytest.mark.parametrize("cut", [b"NATS/1.0\r\nX:", b"XXXX", b"", b"NATS/1.0 404 X\r\n"])
def test_headers_glued_to_a_publishers_malformed_ones_are_found(cut: bytes) -> None:
    server = "".join(f"{line}\r\n" for line in GOOD).encode()
    assert place_in_log(cut + server + b"\r\n") == Place(SUBJECT, 7)


@pytest.mark.parametrize("subject", ["agent.created", "agent.*._.tests._._._", "agent.a b.c"])
def test_what_is_on_no_subject_of_ours_is_hidden(subject: str) -> None:
    assert StoredEvent(Place(subject, 1), b"", b"").is_hidden
    assert not stored(1).is_hidden


def test_an_answer_that_was_steered_into_the_log_is_unreadable() -> None:
    event = make_event()
    steered = StoredEvent(
        Place(event.subject, 1), headers("Nats-Stream: EVENTS", *GOOD), encode_body(event)
    )
    assert not steered.is_readable


def test_an_event_on_another_subject_is_unreadable() -> None:
    moved = StoredEvent(Place("agent.deleted._.tests._._._", 1), b"", encode_body(make_event()))
    assert not moved.is_readable
    assert not unreadable(1, SUBJECT).is_readable


def test_each_form_has_the_same_event() -> None:
    event = stored(7, entity="a.b")
    expected = {"op": "event", "seq": 7, "event": decode_body(event.body).to_map()}
    assert json.loads(event.json) == expected
    assert json.loads(event.json_for('s"1')) == expected | {"sub": 's"1'}
    assert cbor2.loads(event.cbor) == [7, event.body]
    assert cbor2.loads(event.cbor_for("s")) == [7, event.body, "s"]


def test_it_is_opened_and_encoded_once() -> None:
    event = stored(1)
    assert event.json is event.json
    assert event.event_json is event.event_json
    assert event.cbor is event.cbor


def test_its_size_is_what_it_expands_to() -> None:
    """What is kept for those who come later is bounded by it."""
    large = stored(1, payload={"agentId": "a", "text": "x" * 1_000_000})
    assert len(large.body) < 1_000
    assert 1_000_000 < large.size_bytes < 1_001_000
    assert len(large.json) < large.size_bytes + 1_000
    small = stored(2)
    assert small.size_bytes == len(small.body)
    untold = zstandard.ZstdCompressor(write_content_size=False).compress(small.body)
    assert StoredEvent(small.place, b"", untold).size_bytes == MAX_PLAIN_BYTES
    assert StoredEvent(small.place, b"", b"\x28\xb5\x2f\xfd").size_bytes == 4
