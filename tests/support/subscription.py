"""A subscription as its client keeps it: a cursor, and all that came, over its connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.patterns import AnyOf, pattern_of

Message = dict[str, Any]
DUPLICATE, ORDER, FOREIGN, CURSOR, PROTOCOL = "duplicate", "order", "foreign", "cursor", "protocol"
"""What can be wrong: came twice; not in log order; not asked for; a cursor that no rule allows;
a message that has no place here."""


@dataclass(frozen=True)
class Violation:
    """A broken promise."""

    kind: str
    what: str
    who: str
    """The client, its connection and its subscription."""
    tail: tuple[Message, ...] = ()
    """The last messages of that connection; the last of them broke it."""

    def __str__(self) -> str:
        lines = "\n".join(f"      {message}" for message in self.tail)
        return f"{self.kind}: {self.what} ({self.who})\n{lines}"


@dataclass(frozen=True)
class Gap:
    """Sequences that a subscription was told may be missing."""

    from_seq: int
    to_seq: int | None
    reason: str
    said_at: float
    """Monotonic time."""

    def names(self, seq: int) -> bool:
        """Say whether *seq* lies in it."""
        return self.from_seq <= seq and (self.to_seq is None or seq <= self.to_seq)


@dataclass
class Span:
    """What a subscription had of one log, from where it began."""

    epoch: str
    start: int
    """It wants what matches after this sequence."""
    cursor: int
    received: list[int] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class Subscription:
    """One subscription, over any number of connections.

    Args:
        channels: What it asks for.
        since: Where it starts the first time; `None` is now.
    """

    def __init__(self, channels: Sequence[str], since: Any = None) -> None:
        self.channels = tuple(channels)
        self.wanted = AnyOf(pattern_of(channel) for channel in channels)
        self.spans: list[Span] = []
        self._first_since = since

    @property
    def since(self) -> Any:
        """Where the next connection goes on."""
        return self.cursor if self.spans else self._first_since

    @property
    def span(self) -> Span:
        """What it has of the log that it reads now."""
        return self.spans[-1]

    @property
    def seq(self) -> int:
        return self.span.cursor

    @property
    def cursor(self) -> str:
        return f"{self.span.epoch}:{self.seq}"

    @property
    def received(self) -> list[int]:
        """Sequences of the log that it reads now, in the order they came."""
        return self.span.received if self.spans else []

    @property
    def gaps(self) -> list[Gap]:
        """Everything that it was told may be missing."""
        return [gap for span in self.spans for gap in span.gaps]

    def has_all(self, last_seq: int, epoch: str | None = None) -> bool:
        """Say whether its cursor has reached a place in the log, or in the log of that *epoch*."""
        return (
            bool(self.spans)
            and self.span.epoch == (epoch or self.span.epoch)
            and (self.seq >= last_seq)
        )
