"""The event-emitter side of a `Mesh`: plain functions that are called as things happen.

A listener runs within the reader, in order, before the next message is looked at: it must not
block, and isn't a coroutine. One that fails is logged, and the connection lives on.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from jarvis_mesh.client.subscription import Subscription
from jarvis_mesh.schema.errors import MeshError
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.subjects import type_tokens

# The standard library's logging, not structlog: a library must not decide where its user's
# messages go, and structlog without configuration writes to standard output.
log = logging.getLogger(__name__)

Undo: TypeAlias = Callable[[], None]
Listener: TypeAlias = Callable[[Any], object]
NoticeName: TypeAlias = Literal["connection", "gap", "lagging", "live", "error"]
_NAMES: Final = frozenset({"event", "connection", "gap", "lagging", "live", "error"})
_TYPE_PREFIX: Final = "event:"


@dataclass(frozen=True, slots=True)
class ConnectionNotice:
    """The connection came, or went ("connection")."""

    is_connected: bool
    reason: str
    """Why it went; empty when it came."""
    is_final: bool = False
    """Whether it isn't tried again: the program disconnected, or its token isn't taken."""


@dataclass(frozen=True, slots=True)
class GapNotice:
    """A range in which events of a subscription may be missing for ever ("gap").

    Said when it arrives: events from before the gap may still wait for the iterator.
    """

    subscription: Subscription
    from_seq: int
    to_seq: int | None
    """`None` where the range is of another log, or of one that was reset."""
    reason: str
    """"expired", "epoch", "reset" or "unreadable"."""
    cursor: str
    """Where the feed goes on."""


@dataclass(frozen=True, slots=True)
class LaggingNotice:
    """This program reads too slowly; the gateway catches it up from the log ("lagging")."""

    behind: int
    """Sequences."""


@dataclass(frozen=True, slots=True)
class LiveNotice:
    """A subscription has joined the live feed, or all have after lagging ("live")."""

    subscription: Subscription | None
    """`None`: all of the connection."""
    cursor: str
    replayed: int | None
    """Events that came from the log."""


@dataclass(frozen=True, slots=True)
class ErrorNotice:
    """Something went wrong that no call could raise ("error")."""

    error: MeshError
    subscription: Subscription | None = None
    seq: int | None = None
    """Of the event that couldn't be read."""


Notice: TypeAlias = ConnectionNotice | GapNotice | LaggingNotice | LiveNotice | ErrorNotice


class Listeners:
    """Who wants to be told of what."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Listener]] = {}

    @property
    def want_events(self) -> bool:
        """Whether anybody listens for events, of whatever type."""
        return any(name.startswith("event") for name in self._by_name)

    def add(self, name: str, listener: Listener) -> Undo:
        """Call *listener* for everything called *name*; return what ends that.

        Raises:
            ValueError: there is no such name, or *listener* is a coroutine function.
            EventError: `event:` isn't followed by an event type.
        """
        if name.startswith(_TYPE_PREFIX):
            type_tokens(name.removeprefix(_TYPE_PREFIX))
        elif name not in _NAMES:
            raise ValueError(f"no notice is called {name!r}: {', '.join(sorted(_NAMES))}")
        if inspect.iscoroutinefunction(listener):
            raise ValueError("a listener is a plain function; iterate to await")
        self._by_name.setdefault(name, []).append(listener)
        undone = False

        def undo() -> None:
            nonlocal undone
            if not undone:  # else a second call would end another registration of the same
                undone = True
                self.remove(name, listener)

        return undo

    def remove(self, name: str, listener: Listener) -> None:
        """Call *listener* for *name* no more, once if it was added twice. Idempotent."""
        listeners = self._by_name.get(name, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._by_name.pop(name, None)

    def tell_event(self, event: Event) -> None:
        """Call who listens for events of this type, or of any."""
        self._call("event", event)
        self._call(_TYPE_PREFIX + event.type, event)

    def tell(self, name: NoticeName, notice: Notice) -> bool:
        """Call who listens for *name*; say whether anybody does."""
        return self._call(name, notice)

    def _call(self, name: str, argument: object) -> bool:
        listeners = self._by_name.get(name)
        if not listeners:
            return False
        for listener in tuple(listeners):
            try:
                listener(argument)
            except Exception:
                log.exception("a listener for %r failed", name)
        return True
