"""What counts as stored, as worth another try, and as final."""

from __future__ import annotations

import pytest

from jarvis_mesh.publishers.answers import Refused, Stored, parse_answer


def test_an_acknowledgement_has_the_sequence() -> None:
    assert parse_answer(b"", b'{"stream":"EVENTS","seq":7,"duplicate":true}') == Stored(7)


IN_PROCESS = (
    b'{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"},'
    b'"stream":"EVENTS","seq":0}'
)


@pytest.mark.parametrize(
    ("headers", "body", "final"),
    [
        (b"NATS/1.0 503\r\n\r\n", b"", False),
        (b"", b'{"error":{"code":503,"description":"no leader"},"seq":0}', False),
        (b"", b'{"error":{"code":400,"description":"too large"},"seq":0}', True),
        (b"", IN_PROCESS, False),
        (b"", b"nonsense", False),
        (b"", b"\xff", False),
    ],
)
def test_a_refusal_is_final_only_when_the_event_is_wrong(
    headers: bytes, body: bytes, final: bool
) -> None:
    answer = parse_answer(headers, body)
    assert isinstance(answer, Refused)
    assert answer.final is final


@pytest.mark.parametrize(
    ("headers", "body", "undecided"),
    [
        (b"NATS/1.0 503\r\n\r\n", b"", False),
        (b"", b'{"error":{"code":400,"description":"too large"},"seq":0}', False),
        (b"", b'{"error":{"code":503,"description":"store closed"},"seq":0}', True),
        (b"", IN_PROCESS, True),
    ],
)
def test_after_what_a_cluster_says_while_it_stores_the_event_may_be_in_the_log(
    headers: bytes, body: bytes, undecided: bool
) -> None:
    answer = parse_answer(headers, body)
    assert isinstance(answer, Refused)
    assert answer.undecided is undecided
