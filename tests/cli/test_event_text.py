from __future__ import annotations

import json
import re
from typing import Any

import pytest

from jarvis_mesh.cli.event_text import event_line, json_line
from jarvis_mesh.schema.event import Event, Metadata, new_id

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202egnp\u2028\r\n\x7f"


def event_of(payload: Any, **about: Any) -> Event:
    return Event(
        id=new_id(1),
        type="terminal:output",
        source="terminal-service",
        timestamp=1_700_000_000_123,
        payload=payload,
        metadata=Metadata(**about),
    )


def test_a_line_says_when_what_who_about_what_and_the_payload() -> None:
    event = event_of({"terminalId": "t1", "output": "hi\n", "n": [1, 2]}, entity="t1")
    line = event_line(event).plain
    assert re.fullmatch(
        r"2023-11-1\d \d\d:\d\d:\d\d\.123 terminal:output      terminal-service/t1  "
        r'output="hi\\n" n=\[1,2\]',
        line,
    ), line


@pytest.mark.parametrize("timestamp", [0, 2**53 - 1])
def test_any_timestamp_can_be_shown(timestamp: int) -> None:
    event = Event(id=new_id(1), type="a:b", source="s", timestamp=timestamp, payload=None)
    assert "a:b" in event_line(event).plain


def test_a_megabyte_becomes_a_short_line() -> None:
    event = event_of({f"key{n}": "x" * 100_000 for n in range(10)} | {"k" * 500: {"a": "y" * 500}})
    assert len(event_line(event).plain) < 500


@pytest.mark.parametrize(
    "event",
    [
        event_of({"output": HOSTILE, HOSTILE: HOSTILE, "deep": [{"x": HOSTILE}]}),
        event_of(HOSTILE),
        event_of({"a": 1}, entity=HOSTILE[:20], user="u"),
        Event(id=new_id(1), type=HOSTILE, source=HOSTILE, timestamp=1, payload=None),
    ],
)
def test_nothing_in_an_event_reaches_the_terminal_raw(event: Event) -> None:
    assert event_line(event).plain.isprintable()
    line = json_line(event, "1:2")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", line)
    assert json.loads(line) == {"cursor": "1:2", "event": event.to_map()}
