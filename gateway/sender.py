"""Saying things to one client, until the connection is ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.flusher import Flushable
from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.gateway.page import Run
from jarvis_mesh.schema.wire import Notice

TRY_AGAIN_LATER: Final = 1013
"""WebSocket close code (IANA registry)."""


class Sender:
    """Encodes messages for one client and writes them.

    Args:
        form: What they are written as.
        outbox: The way to the client.
        encoded_runs: Those of the gateway, shared by all clients.
    """

    __slots__ = ("_encoded_runs", "form", "group", "has_ended", "on_end", "on_failure", "outbox")

    def __init__(self, form: Format, outbox: Outbox, encoded_runs: EncodedRuns) -> None:
        self.form = form
        self.outbox = outbox
        self.group: Flushable | None = None
        """What the client is a member of: it may have collected what comes before a message."""
        self.has_ended = False
        self.on_end: Callable[[], None] = _nothing
        """Called once, when the connection is ended from here."""
        self.on_failure: Callable[[], None] = _nothing
        """Called when something was wrong with us, which has been logged."""
        self._encoded_runs = encoded_runs

    def say(self, notice: Notice) -> None:
        """Send anything but an event."""
        self._send(self.form.encode(notice))

    def say_events(self, run: Run, sub: str | None = None) -> None:
        """Send events for all live subscriptions, or for one alone."""
        self._send(self._encoded_runs.encode(run, self.form, sub))

    def end(self, reason: str, code: int, *, discard: bool = False) -> None:
        """Send nothing from now on, and close once what is queued was written or discarded."""
        if self.has_ended:
            return
        self.has_ended = True
        self.on_end()  # first: what the group has collected comes before the end
        self.outbox.finish(code, reason, discard=discard)

    def forget(self) -> None:
        """Let go of who has asked to be called: they refer to this in turn, and what refers to
        each other stays until the garbage collector comes, which is seldom (server.py)."""
        self.on_end = self.on_failure = _nothing

    def _send(self, message: bytes) -> None:
        if self.has_ended:
            return
        if self.group is not None:
            self.group.flush()
        self.outbox.write(message)


def _nothing() -> None:
    pass
