"""One client as the gateway sees it, whatever it is served over."""

from __future__ import annotations

from typing import Final

import structlog

from jarvis_mesh.gateway.sender import TRY_AGAIN_LATER, Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.wire import Closing, Heartbeat

INTERNAL_ERROR: Final = 1011
"""WebSocket close code (IANA registry)."""

log = structlog.get_logger(__name__)


class Endpoint:
    """What all clients have: something that is sent to them, and an end."""

    def __init__(self, sender: Sender, shared: SharedFeed, services: Services) -> None:
        self._sender = sender
        self._shared = shared
        self._services = services

    @property
    def is_lagging(self) -> bool:
        """Whether it is being caught up."""
        return not (self._shared.is_live or self._sender.ended.is_set())

    @property
    def subscriptions(self) -> int:
        """How many it has open."""
        return 1

    def fall_behind(self) -> None:
        """Let what is live go on from the log: the live feed has a hole."""
        self._shared.fall_behind()

    def look_after(self, silent_since: float) -> None:
        """End a client that takes nothing; tell one that was sent nothing where the log is.

        Args:
            silent_since: Monotonic time; who was sent nothing after it hears a heartbeat.
        """
        if self._sender.ended.is_set():
            return
        if self._sender.stalled_for() >= self._services.stalled_after:
            log.warning("a client takes nothing", seconds=self._services.stalled_after)
            self._services.metrics.drop("stalled")
            self.end("stalled", TRY_AGAIN_LATER, discard=True)
        elif self._shared.is_live and self._sender.last_sent <= silent_since:
            position = self._position()
            if position is not None:
                self._sender.say(Heartbeat(cursor=position))

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """Tell the client to come back elsewhere or later, and end the connection."""
        self._sender.say(Closing(reason=reason, retry_ms=self._services.retry_ms()))
        self._sender.end(reason, code, discard=discard)

    def _position(self) -> str | None:
        live = self._services.live
        return str(Cursor(live.epoch, live.position)) if live.epoch else None

    def _fail(self) -> None:
        self.end("internal", INTERNAL_ERROR)
