"""A page: consecutive events of the log, and which of them a filter passes.

One page serves every feed that comes by, so finding what is a feed's own costs a look-up per
filter, not a comparison per event: the page is indexed once for every *shape* of filter. What
it finds is cut into *runs*, the same ones for all feeds with the same filters, so that these
can share what a run is encoded to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.filters import Filter, Shape, masked

NEAR: Final = 10_000
"""Sequences before the log's end within which it is read without rationing."""


RUN_EVENTS: Final = 64
RUN_BYTES: Final = 4 * 1024
"""A run is a bounded piece of a page, after each of which a client may be too full."""
_MAX_KEPT: Final = 64
"""Sets of filters whose runs a page keeps."""

Run: TypeAlias = tuple[StoredEvent, ...]
"""Events for a feed, ascending, at least one: all readable, or one that isn't."""


def is_far(after_seq: int, exists_seq: int) -> bool:
    """Say whether reading after *after_seq*, of a log that ends at *exists_seq*, is rationed."""
    return exists_seq - after_seq > NEAR


class Page:
    """All that is known of a range of the log.

    Args:
        after_seq: The range begins after this sequence.
        upto_seq: Its last sequence; equal to *after_seq* when nothing follows.
        events: What the log had in the range, ascending; or, of a *sparse* page, only what
            passes the filters that it was read for.
        first_seq: The log's first sequence after the page was read: what lies before it and
            isn't in the page has expired.
    """

    def __init__(
        self,
        after_seq: int,
        upto_seq: int,
        events: Sequence[StoredEvent],
        *,
        first_seq: int = 0,
    ) -> None:
        self.after_seq = after_seq
        self.upto_seq = upto_seq
        self.events = events
        self.first_seq = first_seq
        self._by_shape: dict[Shape, Mapping[tuple[str, ...], Sequence[StoredEvent]]] = {}
        self._runs: dict[tuple[Filter, ...], Sequence[Run]] = {}

    @property
    def size_bytes(self) -> int:
        """Sum of its events'."""
        return sum(event.size_bytes for event in self.events)

    def holes(self, after_seq: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges above *after_seq* that had expired when the page was read.

        Mostly none or one; two when retention went on during the read.
        """
        expected = after_seq + 1
        for event in self.events:
            if expected >= self.first_seq:
                return
            if event.seq > expected:
                yield expected, min(event.seq, self.first_seq) - 1
            expected = max(expected, event.seq + 1)
        if expected < self.first_seq:
            yield expected, self.first_seq - 1

    def runs(self, filters: tuple[Filter, ...]) -> Sequence[Run]:
        """Return the events that pass any of *filters*, each once, ascending, in runs."""
        found = self._runs.get(filters)
        if found is None:
            if len(self._runs) >= _MAX_KEPT:
                self._runs.clear()
            found = self._runs[filters] = tuple(_cut(self._matching(filters)))
        return found

    def _matching(self, filters: Iterable[Filter]) -> Sequence[StoredEvent]:
        found = [each for wanted in filters if (each := self._passing(wanted))]
        if len(found) <= 1:
            return found[0] if found else ()
        union = {event.seq: event for events in found for event in events}
        return [union[seq] for seq in sorted(union)]

    def _passing(self, wanted: Filter) -> Sequence[StoredEvent]:
        shape = wanted.shape
        index = self._by_shape.get(shape)
        if index is None:
            index = self._by_shape[shape] = _index(self.events, shape)
        return index.get(wanted.tokens, ())


def _index(
    events: Iterable[StoredEvent], shape: Shape
) -> Mapping[tuple[str, ...], Sequence[StoredEvent]]:
    index = defaultdict(list)
    for event in events:
        if not event.is_hidden:
            index[masked(event.tokens, shape)].append(event)
    return index


def _cut(events: Iterable[StoredEvent]) -> Iterator[Run]:
    run: list[StoredEvent] = []
    size = 0
    for event in events:
        if run and (not event.is_readable or size > RUN_BYTES or len(run) >= RUN_EVENTS):
            yield tuple(run)
            run, size = [], 0
        if not event.is_readable:
            yield (event,)
        else:
            run.append(event)
            size += event.size_bytes
    if run:
        yield tuple(run)
