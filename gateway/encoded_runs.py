"""What runs are encoded to, kept while others are likely to want the same bytes.

Feeds with the same filters get the same runs from a page (page.py), and after a restart or a
hole there are many of them at once: they should cost one encoding, not one each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.page import Run

MAX_BYTES: Final = 32 * 1024 * 1024
_EVENT_OVERHEAD: Final = 1024
"""What an event of a run takes beside its body. Its page may have gone already, and what is cached
is then all that keeps it: 30,000 events for 8 MiB of short runs, before that was counted."""


class EncodedRuns:
    """A bounded cache, by the identity of a run."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        # The run is in the value too: an identity is one as long as the object lives.
        self._encoded: OrderedDict[tuple[int, Format, str | None], tuple[Run, bytes]] = (
            OrderedDict()
        )

    def encode(self, run: Run, form: Format, sub: str | None) -> bytes:
        """Return *run* in *form*, for one subscription or (`None`) for all live ones."""
        key = (id(run), form, sub)
        found = self._encoded.get(key)
        if found is not None:
            self._encoded.move_to_end(key)
            return found[1]
        encoded = _encode(run, form, sub)
        self._encoded[key] = run, encoded
        self._bytes += _size(run, encoded)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._encoded.popitem(last=False)[1])
        return encoded


def _size(run: Run, encoded: bytes) -> int:
    return len(encoded) + sum(_EVENT_OVERHEAD + event.size_bytes for event in run)


def _encode(run: Run, form: Format, sub: str | None) -> bytes:
    if sub is None:
        return form.separator.join(map(form.event, run))
    return form.separator.join(form.event_for(event, sub) for event in run)
