"""The catalogue is the protocol's: 28 types, each with what its payload must hold."""

from __future__ import annotations

from typing import Any

import pytest

from jarvis_mesh.schema.errors import EventError, SetupError
from jarvis_mesh.schema.types import (
    BUILT_IN_FAMILIES,
    RESERVED_FAMILIES,
    Payload,
    TypeRegistry,
    check_families,
)

REQUIRED = {
    "agent:created": "agentId",
    "agent:updated": "agentId",
    "agent:deleted": "agentId",
    "agent:status": "agentId status",
    "agent:task:started": "agentId taskId",
    "agent:task:completed": "agentId taskId",
    "agent:task:failed": "agentId taskId error",
    "agent:message": "agentId message",
    "terminal:created": "terminalId",
    "terminal:closed": "terminalId",
    "terminal:output": "terminalId output",
    "terminal:input": "terminalId input",
    "terminal:error": "terminalId error",
    "system:status": "status",
    "system:metrics": "",
    "system:error": "message error",
    "system:warning": "message",
    "workflow:created": "workflowId",
    "workflow:started": "workflowId",
    "workflow:step:started": "workflowId stepId",
    "workflow:step:completed": "workflowId stepId",
    "workflow:step:failed": "workflowId stepId error",
    "workflow:completed": "workflowId",
    "workflow:failed": "workflowId error",
    "model:selected": "model",
    "model:fallback": "from to",
    "model:usage": "model",
    "model:error": "model error",
}
ENTITY_KEYS = {"agent": "agentId", "terminal": "terminalId", "workflow": "workflowId"}


def least(name: str) -> dict[str, Any]:
    return dict.fromkeys(REQUIRED[name].split(), "x")


def test_there_are_the_28_built_in_types_and_no_more() -> None:
    assert [each.name for each in TypeRegistry()] == list(REQUIRED)
    assert len(REQUIRED) == 28


@pytest.mark.parametrize("name", REQUIRED)
def test_the_required_keys_are_enough(name: str) -> None:
    assert TypeRegistry().check(name, least(name)).name == name


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, keys in REQUIRED.items() for key in keys.split()]
)
def test_each_required_key_is_required_and_is_text(name: str, key: str) -> None:
    payload = least(name)
    for wrong in (None, 7, ["x"]):
        with pytest.raises(EventError, match=rf"^{name}: payload\.{key}: expected str"):
            TypeRegistry().check(name, {**payload, key: wrong})
    del payload[key]
    with pytest.raises(EventError, match=rf"^{name}: payload: .*missing required field {key}"):
        TypeRegistry().check(name, payload)


@pytest.mark.parametrize("name", REQUIRED)
def test_unknown_keys_pass(name: str) -> None:
    TypeRegistry().check(name, {**least(name), "future": {"key": 1}})


@pytest.mark.parametrize("payload", [None, "text", 7, ["x"]])
def test_a_built_in_payload_is_a_map(payload: object) -> None:
    with pytest.raises(EventError, match="payload: expected object"):
        TypeRegistry().check("agent:created", payload)


@pytest.mark.parametrize("name", REQUIRED)
def test_the_entity_is_what_the_event_is_about(name: str) -> None:
    expected = ENTITY_KEYS.get(name.partition(":")[0])
    if expected is None:
        expected = {"system": "host", "model": "to" if name == "model:fallback" else "model"}[
            name.partition(":")[0]
        ]
    assert TypeRegistry().check(name, least(name)).entity_key == expected


class Started(Payload, kw_only=True):
    deploy_id: str
    percent: float | None = None


def test_an_application_s_type_is_checked_against_its_model() -> None:
    types = TypeRegistry((*BUILT_IN_FAMILIES, "deploy"))
    types.register("deploy:started", Started, entity_key="deployId")
    assert types.check("deploy:started", {"deployId": "d"}).entity_key == "deployId"
    with pytest.raises(EventError, match=r"payload\.percent: expected float"):
        types.check("deploy:started", {"deployId": "d", "percent": "half"})


def test_a_type_registered_without_a_model_takes_any_payload() -> None:
    types = TypeRegistry()
    types.register("agent:thought")
    types.check("agent:thought", ["anything"])


def test_registering_the_same_again_is_fine_and_something_else_is_not() -> None:
    types = TypeRegistry(("deploy",))
    types.register("deploy:started", Started)
    types.register("deploy:started", Started)
    with pytest.raises(EventError, match="registered already"):
        types.register("deploy:started", Payload)
    with pytest.raises(EventError, match="registered already"):
        TypeRegistry().register("agent:created", Started)


def test_an_unknown_type_says_which_was_meant() -> None:
    with pytest.raises(EventError, match="did you mean 'agent:created'"):
        TypeRegistry().check("agent:create", {})


def test_an_unregistered_type_of_a_known_family_passes_where_allowed() -> None:
    types = TypeRegistry(allow_unregistered=True)
    assert types.check("agent:thought", [1]).entity_key is None
    with pytest.raises(EventError, match="MESH_FAMILIES"):
        types.check("deploy:started", {})
    with pytest.raises(EventError, match="missing required field agentId"):
        types.check("agent:created", {})


def test_a_family_that_the_log_lacks_is_refused_naming_the_setting() -> None:
    types = TypeRegistry()
    with pytest.raises(EventError, match=r"no family 'deploy'.*MESH_FAMILIES"):
        types.check("deploy:x", {})
    with pytest.raises(EventError, match=r"no family 'deploy'.*MESH_FAMILIES"):
        types.register("deploy:x")


def test_types_of_families_that_are_not_configured_are_left_out() -> None:
    assert {each.name.partition(":")[0] for each in TypeRegistry(("model", "x"))} == {"model"}


def test_reserved_families_are_those_of_the_protocol() -> None:
    assert set(RESERVED_FAMILIES) == {"live", "svc", "mesh", "all", "shared"}


@pytest.mark.parametrize("family", [*RESERVED_FAMILIES, "", "Agent", "a.b", "a:b", "-a", "_", "*"])
def test_a_reserved_or_malformed_family_is_refused(family: str) -> None:
    with pytest.raises(SetupError, match="family"):
        check_families(("agent", family))


def test_families_are_at_least_one_and_each_once() -> None:
    assert check_families(["b", "a", "b"]) == ("b", "a")
    with pytest.raises(SetupError, match="at least one"):
        check_families([])
