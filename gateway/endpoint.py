"""One client as the gateway sees it, whatever it is served over."""

from __future__ import annotations

from typing import Final

import structlog

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.sender import TRY_AGAIN_LATER, Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.errors import UnauthorizedError
from jarvis_mesh.schema.wire import Closing, Error, Heartbeat

POLICY_VIOLATION: Final = 1008
INTERNAL_ERROR: Final = 1011
"""WebSocket close codes (RFC 6455, section 7.4)."""
FAREWELL: Final = 60.0
"""Seconds that a client which is sent away has for taking the last words."""

log = structlog.get_logger(__name__)


class Endpoint:
    """What all clients have: something that is sent to them, and an end."""

    __slots__ = (
        "_ended_at",
        "_last_progress",
        "_last_written",
        "_sender",
        "_services",
        "_shared",
        "_unacknowledged_bytes",
        "grants",
        "visit",
    )

    def __init__(
        self,
        sender: Sender,
        shared: SharedFeed,
        services: Services,
        grants: Grants | None,
        visit: Visit,
    ) -> None:
        self.visit = visit
        """What the client has taken of what is limited."""
        self.grants = grants
        """What the client may see and say; `None` until it is authenticated."""
        self._sender = sender
        self._shared = shared
        self._services = services
        self._unacknowledged_bytes = 0
        self._ended_at: float | None = None
        self._last_written = self._last_progress = services.clock.monotonic()

    @property
    def is_lagging(self) -> bool:
        """Whether it is being caught up."""
        return not (self._shared.is_live or self._sender.has_ended)

    @property
    def subscriptions(self) -> int:
        """How many it has open."""
        return 1

    def fall_behind(self) -> None:
        """Let what is live go on from the log: the live feed has a hole."""
        self._shared.fall_behind()

    def look_after(self, now: float, silent_after: float) -> None:
        """End a client that takes nothing; tell one that was sent nothing where the log is.

        Args:
            now: Monotonic time.
            silent_after: Seconds after which a heartbeat is due.
        """
        self._note_progress(now)
        if self._sender.has_ended:
            self._ended_at = now if self._ended_at is None else self._ended_at
            if now - self._ended_at >= FAREWELL:
                self.abort()
        elif now - self._last_progress >= self._services.settings.stalled_after:
            log.warning("a client takes nothing", seconds=self._services.settings.stalled_after)
            self._services.metrics.drop("stalled")
            self.end("stalled", TRY_AGAIN_LATER, discard=True)
        elif now - self._last_written >= silent_after:
            self._shared.settle()
            position = self._position()
            if self._shared.is_live and position is not None:
                self._sender.say(Heartbeat(cursor=position))

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """Tell the client to come back elsewhere or later, and end the connection."""
        self._sender.say(Closing(reason=reason, retry_ms=self._services.retry_ms()))
        self._sender.end(reason, code, discard=discard)

    def expire(self) -> None:
        """End the connection: its token has expired, or none came in time."""
        if self.grants is None:
            within = self._services.settings.auth_timeout
            self.deauthorize(f"no token came within {within:g} s", "late")
        else:
            self.deauthorize("the token has expired", "expired")

    def deauthorize(self, message: str, reason: str) -> None:
        """End the connection of a client that may no longer be served.

        Args:
            message: Says why to the client.
            reason: Says why in one word, as it is counted.
        """
        if not self._sender.has_ended:
            self._services.metrics.refuse(reason)
            self._sender.say(Error.of(UnauthorizedError(message)))
            self._sender.end("unauthorized", POLICY_VIOLATION)
            self.grants = None  # nor counts what it has said and wasn't heard yet

    def fail(self) -> None:
        """End the connection by an error of ours, which was logged."""
        self.end("internal", INTERNAL_ERROR)

    def abort(self) -> None:
        """Cut the connection. Idempotent."""
        self._sender.outbox.abort()

    def _note_progress(self, now: float) -> None:
        """See now and then what a delivery shouldn't cost anything for: what became of it.

        Who is live can have more unacknowledged than before though he takes in much; but then
        it is less some other time. Who takes nothing has ever more until he is full, and from
        then on the same.
        """
        outbox = self._sender.outbox
        unacknowledged_bytes = outbox.unacknowledged_bytes()
        # What was written since is among them: as many as before are fewer of those before.
        before = self._unacknowledged_bytes + (0 if outbox.has_written else -1)
        if unacknowledged_bytes <= before or not unacknowledged_bytes:
            self._last_progress = now
        self._unacknowledged_bytes = unacknowledged_bytes
        if outbox.has_written:
            outbox.has_written = False
            self._last_written = now

    def _position(self) -> str | None:
        live = self._services.live
        return str(Cursor(live.epoch, live.position)) if live.epoch else None
