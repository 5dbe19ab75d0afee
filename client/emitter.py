"""The event-emitter side of a `Mesh`: what its user calls to listen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

from jarvis_mesh.client.listeners import (
    ConnectionNotice,
    ErrorNotice,
    GapNotice,
    LaggingNotice,
    Listener,
    Listeners,
    LiveNotice,
    Undo,
)
from jarvis_mesh.schema.event import Event


class Emitter:
    """Who listens, and to what.

    Args:
        tell_queued: Tells the events that wait because nobody listened.
    """

    def __init__(self, tell_queued: Callable[[], None]) -> None:
        self._listeners = Listeners()
        self._tell_waiting = tell_queued

    @overload
    def on(
        self, name: Literal["connection"], listener: Callable[[ConnectionNotice], object]
    ) -> Undo: ...
    @overload
    def on(self, name: Literal["gap"], listener: Callable[[GapNotice], object]) -> Undo: ...
    @overload
    def on(self, name: Literal["lagging"], listener: Callable[[LaggingNotice], object]) -> Undo: ...
    @overload
    def on(self, name: Literal["live"], listener: Callable[[LiveNotice], object]) -> Undo: ...
    @overload
    def on(self, name: Literal["error"], listener: Callable[[ErrorNotice], object]) -> Undo: ...
    @overload
    def on(self, name: str, listener: Callable[[Event], object]) -> Undo: ...

    def on(self, name: str, listener: Listener) -> Undo:
        """Call *listener* with every notice called *name*; return what ends that.

        Args:
            name: "event", "event:<type>" (one exact type), "connection", "gap", "lagging",
                "live" or "error". An event is told once for every subscription it belongs to.
                Events that wait because nobody listened or iterated are told at once.
            listener: A plain function that doesn't block; what it raises is logged.

        Raises:
            ValueError: no such name, or *listener* is a coroutine function.
            EventError: `event:` isn't followed by an event type.
        """
        undo = self._listeners.add(name, listener)
        if self._listeners.want_events:
            self._tell_waiting()
        return undo

    def off(self, name: str, listener: Listener) -> None:
        """Call *listener* for *name* no more. Idempotent."""
        self._listeners.remove(name, listener)
