"""What a gateway counts, in the Prometheus text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from jarvis_mesh.gateway.over_limit import BeyondError, BusyError
from jarvis_mesh.schema.errors import MeshError

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
GAP_REASONS: Final = ("expired", "epoch", "reset", "unreadable")
HOLD_REASONS: Final = ("connection", "leader", "silence", "tick", "sequence", "order")
DROP_REASONS: Final = ("foreign", "stalled")
LIMITS: Final = (
    "connections_address",
    "connections_user",
    "requests",
    "messages",
    "message_bytes",
    "subscriptions",
    "channels",
    "replays",
    "replay_age",
)
"""By name, as they are counted."""
REFUSAL_REASONS: Final = ("unauthorized", "late", "expired", "revoked", "forbidden", *LIMITS)


class Metrics:
    """The counters of one gateway; its gauges are read when they are asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.lagged = self._counter(
            "mesh_lagged_total", "Times that a connection fell behind the live feed."
        )
        self.log_reads = self._counter("mesh_log_reads_total", "Reads of the log.")
        gaps = Counter(
            "mesh_gaps_total", "Gaps said to clients.", ["reason"], registry=self._registry
        )
        holds = Counter(
            "mesh_resyncs_total",
            "Times that the live feed was held and repaired from the log.",
            ["reason"],
            registry=self._registry,
        )
        drops = Counter(
            "mesh_drops_total",
            "Dropped: messages on live.> that are no copies of the log (foreign), connections "
            "whose client took nothing (stalled).",
            ["reason"],
            registry=self._registry,
        )
        refusals = Counter(
            "mesh_refusals_total",
            "Refused: tokens that aren't valid (unauthorized), connections without one in time "
            "(late) or whose token has expired or was revoked, what no token granted, and what "
            "was over the limit of that name.",
            ["reason"],
            registry=self._registry,
        )
        self._refusals = {reason: refusals.labels(reason) for reason in REFUSAL_REASONS}
        self._drops = {reason: drops.labels(reason) for reason in DROP_REASONS}
        self._gaps = {reason: gaps.labels(reason) for reason in GAP_REASONS}
        self._holds = {reason: holds.labels(reason) for reason in HOLD_REASONS}

    def gap(self, reason: str) -> None:
        """Count a gap that was said."""
        self._gaps[reason].inc()

    def drop(self, reason: str) -> None:
        """Count something that was dropped."""
        self._drops[reason].inc()

    def refuse(self, reason: str) -> None:
        """Count something that was refused."""
        self._refusals[reason].inc()

    def refused(self, error: MeshError) -> None:
        """Count *error*, if it refuses what a client may not have."""
        reason = error.limit if isinstance(error, (BusyError, BeyondError)) else error.code
        if reason in self._refusals:
            self.refuse(reason)

    def resync(self, reason: str) -> None:
        """Count a hold of the live feed."""
        self._holds[reason].inc()

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what *read* returns under *name*."""
        Gauge(name, meaning, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """Return all of it as text."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(name, meaning, registry=self._registry)
