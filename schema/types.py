"""The catalogue of event types, and what the payload of each must hold.

Applications register more within the configured families:

    registry = TypeRegistry(families=(*BUILT_IN_FAMILIES, "deploy"))
    registry.register("deploy:started", DeployStarted, entity_key="deployId")

Payload keys are in camelCase on the wire; every model lists the keys it requires and the
optional ones whose form is fixed. Keys it doesn't know are kept.

Source: docs/protocol.md, "Types".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from jarvis_mesh.schema.errors import EventError, SetupError
from jarvis_mesh.schema.event import describe
from jarvis_mesh.schema.json_value import JSON
from jarvis_mesh.schema.subjects import TYPE_TOKEN, type_tokens

BUILT_IN_FAMILIES: Final = ("agent", "terminal", "system", "workflow", "model")
RESERVED_FAMILIES: Final = frozenset({"live", "svc", "mesh", "all", "shared"})
"""Names with another meaning on NATS or as a channel."""


class Payload(msgspec.Struct, rename="camel"):
    """Base of the payload models. Register a subclass for a type of your own."""


class AgentPayload(Payload, kw_only=True):
    agent_id: str
    name: str | None = None


class AgentStatus(AgentPayload, kw_only=True):
    status: str


class AgentTask(AgentPayload, kw_only=True):
    task_id: str


class AgentTaskFailed(AgentTask, kw_only=True):
    error: str


class AgentMessage(AgentPayload, kw_only=True):
    message: str


class TerminalPayload(Payload, kw_only=True):
    terminal_id: str


class TerminalCreated(TerminalPayload, kw_only=True):
    columns: int | None = None
    rows: int | None = None


class TerminalClosed(TerminalPayload, kw_only=True):
    exit_code: int | None = None
    signal: str | None = None


class TerminalOutput(TerminalPayload, kw_only=True):
    output: str
    data: str | None = None
    """The same bytes in base64, when they aren't UTF-8."""


class TerminalInput(TerminalPayload, kw_only=True):
    input: str
    data: str | None = None


class TerminalError(TerminalPayload, kw_only=True):
    error: str


class SystemPayload(Payload, kw_only=True):
    host: str | None = None


class SystemStatus(SystemPayload, kw_only=True):
    status: str


class SystemMetrics(SystemPayload, kw_only=True):
    pass


class SystemWarning(SystemPayload, kw_only=True):
    message: str


class SystemErrorReport(SystemPayload, kw_only=True):
    message: str
    error: str


class WorkflowPayload(Payload, kw_only=True):
    workflow_id: str
    name: str | None = None


class WorkflowStep(WorkflowPayload, kw_only=True):
    step_id: str


class WorkflowStepFailed(WorkflowStep, kw_only=True):
    error: str


class WorkflowFailed(WorkflowPayload, kw_only=True):
    error: str


class ModelPayload(Payload, kw_only=True):
    model: str


class ModelFallback(Payload, kw_only=True):
    from_: str = msgspec.field(name="from")
    to: str


class ModelError(ModelPayload, kw_only=True):
    error: str


_BUILT_IN: Final[dict[str, tuple[type[Payload], str]]] = {
    "agent:created": (AgentPayload, "agentId"),
    "agent:updated": (AgentPayload, "agentId"),
    "agent:deleted": (AgentPayload, "agentId"),
    "agent:status": (AgentStatus, "agentId"),
    "agent:task:started": (AgentTask, "agentId"),
    "agent:task:completed": (AgentTask, "agentId"),
    "agent:task:failed": (AgentTaskFailed, "agentId"),
    "agent:message": (AgentMessage, "agentId"),
    "terminal:created": (TerminalCreated, "terminalId"),
    "terminal:closed": (TerminalClosed, "terminalId"),
    "terminal:output": (TerminalOutput, "terminalId"),
    "terminal:input": (TerminalInput, "terminalId"),
    "terminal:error": (TerminalError, "terminalId"),
    "system:status": (SystemStatus, "host"),
    "system:metrics": (SystemMetrics, "host"),
    "system:error": (SystemErrorReport, "host"),
    "system:warning": (SystemWarning, "host"),
    "workflow:created": (WorkflowPayload, "workflowId"),
    "workflow:started": (WorkflowPayload, "workflowId"),
    "workflow:step:started": (WorkflowStep, "workflowId"),
    "workflow:step:completed": (WorkflowStep, "workflowId"),
    "workflow:step:failed": (WorkflowStepFailed, "workflowId"),
    "workflow:completed": (WorkflowPayload, "workflowId"),
    "workflow:failed": (WorkflowFailed, "workflowId"),
    "model:selected": (ModelPayload, "model"),
    "model:fallback": (ModelFallback, "to"),
    "model:usage": (ModelPayload, "model"),
    "model:error": (ModelError, "model"),
}


@dataclass(frozen=True, slots=True)
class EventType:
    """What the registry knows of one type."""

    name: str
    model: type[Payload]
    entity_key: str | None
    """The payload key whose value becomes the event's entity when none is given."""


class TypeRegistry:
    """The event types of an application, within the families that the log has.

    Args:
        families: The families that the log stores (the setting MESH_FAMILIES).
        allow_unregistered: Whether types of these families that nobody registered pass,
            with any payload. Gateways and command lines do so, since they can't know every
            application's types; publishers don't, since there it is a typing error.

    Raises:
        SetupError: a family's name is reserved or malformed.
    """

    def __init__(
        self,
        families: Iterable[str] = BUILT_IN_FAMILIES,
        *,
        allow_unregistered: bool = False,
    ) -> None:
        self.families = check_families(families)
        self._allow_unregistered = allow_unregistered
        self._types = {
            name: EventType(name, model, entity_key)
            for name, (model, entity_key) in _BUILT_IN.items()
            if name.partition(":")[0] in self.families
        }

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._types.values())

    def register(
        self, name: str, model: type[Payload] = Payload, *, entity_key: str | None = None
    ) -> None:
        """Add the type *name*, whose payload must be a *model*.

        Raises:
            EventError: malformed, of a family that the log doesn't have, or known already
                with another model.
        """
        self._check_family(name)
        new = EventType(name, model, entity_key)
        if self._types.setdefault(name, new) != new:
            raise EventError(f"the type {name!r} is registered already, with another model")

    def check(self, name: str, payload: JSON) -> EventType:
        """Return what is known of the type *name*, having checked the payload against it.

        Raises:
            EventError: the type is unknown, or the payload lacks what the type requires.
        """
        self._check_family(name)
        event_type = self._types.get(name)
        if event_type is None:
            if self._allow_unregistered:
                return EventType(name, Payload, None)
            raise EventError(self._unknown_type(name))
        if event_type.model is not Payload:
            try:
                msgspec.convert(payload, event_type.model)
            except msgspec.ValidationError as error:
                raise EventError(f"{name}: {_at_payload(describe(error))}") from None
        return event_type

    def _check_family(self, name: str) -> None:
        family = type_tokens(name)[0]
        if family not in self.families:
            raise EventError(
                f"the log has no family {family!r} (for {name!r}), only "
                f"{', '.join(self.families)}; add it to MESH_FAMILIES everywhere"
            )

    def _unknown_type(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._types, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown event type {name!r}: register it with TypeRegistry.register{hint}"


def check_families(families: Iterable[str]) -> tuple[str, ...]:
    """Return *families* without repetitions.

    Raises:
        SetupError: none at all, or a name that is reserved or malformed.
    """
    checked = tuple(dict.fromkeys(families))
    if not checked:
        raise SetupError("MESH_FAMILIES is empty: name at least one family")
    for family in checked:
        if family in RESERVED_FAMILIES:
            raise SetupError(f"the family name {family!r} is reserved: choose another")
        if not TYPE_TOKEN.fullmatch(family):
            raise SetupError(
                f"{family!r} is no family name: write a-z, 0-9, _ and -, a letter or digit first"
            )
    return checked


def _at_payload(complaint: str) -> str:
    path, colon, reason = complaint.partition(": ")
    return f"payload.{path}: {reason}" if colon else f"payload: {complaint}"
