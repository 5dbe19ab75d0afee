"""The log, as data: the JetStream stream EVENTS.

Retention is by age and bytes only, so the log expires from its front: everything removed in
the middle would be missed without a trace.

Source: docs/protocol.md, "The log"; NATS ADR-17 (republish), ADR-31 (Direct Get).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jarvis_mesh.schema.subjects import LIVE_PREFIX, TICK_FAMILY
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES

STREAM: Final = "EVENTS"
DUPLICATE_WINDOW: Final = 120.0
"""Seconds in which an event id counts once."""
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What an operator chooses about the log."""

    families: tuple[str, ...] = BUILT_IN_FAMILIES
    max_age: float = 7 * 86_400.0
    """Seconds that an event is kept."""
    max_bytes: int = 10 * 1024**3
    replicas: int = 1
    """Three in a cluster."""


def stream_config(settings: LogSettings) -> dict[str, Any]:
    """Return the stream's configuration, in the form of the JetStream API."""
    return {
        "name": STREAM,
        "subjects": [*(f"{family}.>" for family in settings.families), f"{TICK_FAMILY}.tick.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": int(settings.max_age * _NANOSECONDS),
        "max_bytes": settings.max_bytes,
        "num_replicas": settings.replicas,
        "duplicate_window": int(
            min(DUPLICATE_WINDOW, settings.max_age) * _NANOSECONDS
        ),  # the server refuses a window longer than the age
        "allow_direct": True,
        "republish": {"src": ">", "dest": f"{LIVE_PREFIX}>"},
    }


def differs(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether a stream's *current* configuration lacks something of the one *wanted*."""
    return any(current.get(key) != value for key, value in wanted.items())
