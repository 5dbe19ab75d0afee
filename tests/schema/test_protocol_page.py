"""What docs/protocol.md says is true: its examples parse, its tables are the code's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis_mesh.gateway.access import grants_of
from jarvis_mesh.schema import wire
from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.cursor import parse_since
from jarvis_mesh.schema.errors import error_from_wire
from jarvis_mesh.schema.event import parse_event
from jarvis_mesh.schema.subjects import is_subject
from jarvis_mesh.schema.types import TypeRegistry

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")


def blocks(kind: str) -> Iterator[str]:
    found = re.findall(rf"```json {kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    yield from found


def lines(kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for block in blocks(kind) for line in block.splitlines()]


def section(title: str) -> str:
    match = re.search(
        rf"^##+ {re.escape(title)}\n(.*?)(?=^##? |\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    assert match, title
    return match[1]


def rows(title: str) -> list[list[str]]:
    table = re.findall(r"^\|(.*)\|$", section(title), re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in table]


def literals(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_json_block_is_of_a_kind_that_is_tested() -> None:
    kinds = set(re.findall(r"```json ?(\w*)", PAGE))
    assert kinds == {"event", "request", "notice", "message", "claims"}


def test_the_example_events_are_valid() -> None:
    for block in blocks("event"):
        event = json.loads(block)
        assert json.dumps(parse_event(event).to_map()) == json.dumps(event)
        TypeRegistry().check(event["type"], event["payload"])
    for message in lines("message"):
        assert message["op"] == "event"
        parse_event(message["event"])


@pytest.mark.parametrize("message", lines("request"), ids=lambda each: each["op"])
def test_an_example_request_is_one(message: dict[str, Any]) -> None:
    request = wire.parse_request(message)
    if isinstance(request, wire.Subscribe):
        parse_since(request.since)
        assert all(map(parse_channel, request.channels))


@pytest.mark.parametrize("message", lines("notice"), ids=lambda each: each["op"])
def test_an_example_notice_is_what_a_gateway_writes(message: dict[str, Any]) -> None:
    assert json.loads(wire.encode_json(wire.parse_notice(message))) == message


def test_the_example_claims_grant_what_they_should() -> None:
    (claims,) = lines("claims")
    grants = grants_of(claims)
    assert grants.user == "alice"
    assert len(grants.subscribe) == 2
    grants.check_publish("agent.status._.client.a7.alice._")
    grants.check_request("terminal", "write")


def test_every_op_has_an_example() -> None:
    requests, notices = lines("request"), lines("notice")
    assert {each["op"] for each in requests} == set(wire._REQUESTS)
    assert {each["op"] for each in notices} == set(wire._NOTICES)


def test_the_table_of_channels_is_true() -> None:
    found = [(cells[0], cells[1]) for cells in rows("Channels") if literals(cells[0])]
    assert len(found) > 15
    for channel, pattern in found:
        assert [parse_channel(*literals(channel)).pattern] == literals(pattern)


def test_the_table_of_types_is_true() -> None:
    types = TypeRegistry()
    seen = []
    for _, names, required in rows("Types")[2:]:
        payload = dict.fromkeys(literals(required), "x")
        for name in literals(names):
            types.check(name, payload)
            seen.append(name)
    assert sorted(seen) == sorted(each.name for each in types)


def test_the_table_of_errors_is_true() -> None:
    found = {literals(code)[0]: again for code, _, again in rows("Errors")[2:]}
    assert len(found) == 14
    for code, again in found.items():
        assert error_from_wire(code, "").code == code
        assert error_from_wire(code, "").retryable is (again == "yes")


def test_the_table_of_starts_is_true() -> None:
    for text, _ in rows("Cursors")[2:]:
        for since in literals(text)[:1]:
            if since != "since":
                parse_since(json.loads(since))


def test_the_example_subjects_are_subjects() -> None:
    found = re.findall(r"^    ([a-z]+\..*)$", section("Subjects"), re.MULTILINE)
    assert len(found) == 2
    assert all(map(is_subject, found))


def test_every_section_that_the_code_names_exists() -> None:
    headings = set(re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE))
    for folder in ("schema", "config", "publishers", "gateway", "client", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            for named in re.findall(
                r"docs/protocol\.md,((?: and)?[^.;]*)", path.read_text("utf-8")
            ):
                assert set(re.findall(r'"([^"]+)"', named)) <= headings, path
