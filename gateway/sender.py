"""Saying things to one client, until the connection is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import LimitError
from jarvis_mesh.schema.wire import Notice

TRY_AGAIN_LATER: Final = 1013
"""WebSocket close code (IANA registry)."""

log = structlog.get_logger(__name__)


class Sender:
    """Encodes messages for one client and queues them.

    Args:
        form: JSON or CBOR.
        outbox: Where the socket takes them from.
    """

    def __init__(self, form: Format, outbox: Outbox, clock: Clock) -> None:
        self.form = form
        self.ended = asyncio.Event()
        """Set when the gateway ends the connection."""
        self.close_code = 1000
        self.close_reason = ""
        self.on_end: Callable[[], None] = lambda: None
        """Called once, when the connection is ended from here."""
        self.last_sent = clock.monotonic()
        self._outbox = outbox
        self._clock = clock

    @property
    def is_drained(self) -> bool:
        """Whether the client has taken most of what was sent."""
        return self._outbox.is_drained

    async def drained(self) -> None:
        """Return once it has."""
        await self._outbox.drained()

    def say(self, notice: Notice) -> None:
        """Send anything but an event."""
        self.send(self.form.encode(notice))

    def say_event(self, event: StoredEvent, sub: str) -> None:
        """Send an event for one subscription."""
        self.send(self.form.event_for(event, sub))

    def send(self, message: bytes) -> None:
        """Send an encoded message. A client that has too much unsent is ended with 1013."""
        if self.ended.is_set():
            return
        try:
            self._outbox.write(message)
        except LimitError as error:
            log.warning("a client is too slow", error=error.message)
            self.end("too slow", TRY_AGAIN_LATER, discard=True)
        else:
            self.last_sent = self._clock.monotonic()

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """Send nothing from now on, and close once what is queued was written or discarded."""
        if self.ended.is_set():
            return
        self.close_code, self.close_reason = code, reason
        self.ended.set()
        self._outbox.finish(discard=discard)
        self.on_end()
