"""What all connections of a gateway share."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from jarvis_mesh.gateway.deadlines import Deadlines
from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.fanout import Fanout
from jarvis_mesh.gateway.live_feed import LiveFeed
from jarvis_mesh.gateway.log_pages import LogPages
from jarvis_mesh.gateway.log_reader import LogReader
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.publishing import Publishing
from jarvis_mesh.gateway.service_calls import ServiceCalls
from jarvis_mesh.gateway.tokens import Tokens
from jarvis_mesh.gateway.turns import Turns
from jarvis_mesh.schema.clock import Clock

MAX_RETRY_MS: Final = 2_000
"""Clients that are sent away come back spread over this long."""


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators that a connection is given."""

    live: LiveFeed
    pages: LogPages
    reader: LogReader
    publishing: Publishing
    calls: ServiceCalls
    tokens: Tokens
    deadlines: Deadlines
    fanout: Fanout
    encoded_runs: EncodedRuns
    metrics: Metrics
    turns: Turns
    clock: Clock
    heartbeat: float
    """Seconds after which a client that was sent nothing is sent a heartbeat."""
    auth_timeout: float
    """Seconds that a client has for its first token."""
    stalled_after: float
    """Seconds after which a client that takes nothing at all is ended."""

    def retry_ms(self) -> int:
        """Return when one client that is sent away should come back."""
        return random.randint(0, MAX_RETRY_MS)  # noqa: S311 - spreads load, hides nothing
