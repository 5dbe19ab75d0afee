"""Interests: this gateway's own NATS subscriptions, one per distinct filter, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from nats.aio.subscription import Subscription

from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.filters import Filter, Shape, masked


class Sink(Protocol):
    """Where live events go: a group of connections, or a conflated subscription."""

    last_seq: int
    """Of the last event it was given; copies that aren't above it are dropped."""

    def deliver(self, event: StoredEvent) -> None:
        """Take the next event that matches, in log order. It must not raise nor wait."""


class Interest:
    """One NATS subscription to `live.<filter>`, and who uses it."""

    def __init__(self, wanted: Filter) -> None:
        self.filter = wanted
        self.users = 0
        self.complete_after: int | None = None
        """Every copy above this sequence comes; `None` until a barrier has said so."""
        self.sinks: set[Sink] = set()
        self.subscription: Subscription | None = None


class Interests:
    """All interests, found by filter or by the subject that they match.

    Finding the matching ones costs a look-up per *shape*, the set of places that a filter
    pins, of which few are in use (one for ten thousand `user:` filters), not per filter.
    """

    def __init__(self) -> None:
        self._by_tokens: dict[tuple[str, ...], Interest] = {}
        self._shapes: Counter[Shape] = Counter()

    def __iter__(self) -> Iterator[Interest]:
        return iter(self._by_tokens.values())

    def __len__(self) -> int:
        return len(self._by_tokens)

    def get(self, wanted: Filter) -> Interest | None:
        """Return the interest of exactly this filter."""
        return self._by_tokens.get(wanted.tokens)

    def add(self, interest: Interest) -> None:
        """Add a new interest; its filter must not be there yet."""
        self._by_tokens[interest.filter.tokens] = interest
        self._shapes[interest.filter.shape] += 1

    def remove(self, interest: Interest) -> None:
        """Remove an interest that is there."""
        del self._by_tokens[interest.filter.tokens]
        shape = interest.filter.shape
        self._shapes[shape] -= 1
        if not self._shapes[shape]:
            del self._shapes[shape]

    def matching(self, subject: Sequence[str]) -> Iterator[Interest]:
        """Yield the interests that the subject with these seven tokens passes."""
        for shape in self._shapes:
            if (interest := self._by_tokens.get(masked(subject, shape))) is not None:
                yield interest
