"""What was measured, and how it reads as a row of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BUSY = 0.95
"""Of a core: from here on the load generator may be what limits."""

_COLUMNS = (
    ("case", 45),
    ("server", -10),
    ("µs/delivery", 11),
    ("deliveries/s", 12),
    ("cores", 5),
    ("p50 ms", 7),
    ("p99 ms", 7),
    ("KB/conn", 7),
    ("µs/hs", 6),
    ("conn/s", 6),
    ("load gen", 8),
    ("others", 6),
)


@dataclass(frozen=True)
class Opened:
    """What it took to open the connections."""

    connections: int
    wanted: int
    seconds: float
    cpu: float
    rss_bytes: float

    @property
    def kb_each(self) -> float:
        """Memory that the server needs for each."""
        return self.rss_bytes / self.connections / 1000

    @property
    def us_each(self) -> float:
        """CPU time of all server processes for each."""
        return self.cpu / self.connections * 1e6

    @property
    def per_second(self) -> float:
        """How many were accepted a second."""
        return self.connections / self.seconds


@dataclass(frozen=True)
class Measured:
    """What one load did."""

    opened: Opened
    events: int
    deliveries: int
    wall: float
    cpu: float
    own_cpu: float
    """Of the load generator."""
    machine_cpu: float
    """Of everything that ran on this machine."""
    wrong: int
    """Connections with too many, too few, or another last event."""
    missing: int
    lost: int
    p50: float | None = None
    p99: float | None = None

    @property
    def us_each(self) -> float:
        """CPU time of all server processes for each delivery."""
        return self.cpu / max(self.deliveries, 1) * 1e6

    @property
    def per_second(self) -> float:
        """Deliveries."""
        return self.deliveries / self.wall

    @property
    def others(self) -> float:
        """Cores that neither the server nor the load generator used."""
        return max(0.0, self.machine_cpu - self.cpu - self.own_cpu) / self.wall

    @property
    def failure(self) -> str:
        """What makes this row worthless; empty if nothing does."""
        if self.lost:
            return f"FAILED: the server closed {self.lost:,} connections"
        if self.wrong:
            how = "too many" if self.missing < 0 else "missing"
            return f"FAILED: {self.wrong:,} connections wrong, {abs(self.missing):,} events {how}"
        return ""

    @property
    def note(self) -> str:
        """What a reader of the row has to know."""
        return "; ".join(self._notes())

    def _notes(self) -> Iterator[str]:
        if self.failure:
            yield self.failure
        if self.opened.connections < self.opened.wanted:
            yield f"only {self.opened.connections:,} connections: file limit"
        if self.own_cpu / self.wall >= BUSY:
            yield "the load generator had no more to give"


Results = dict[tuple[str, str], Measured]
"""By load and server."""


def print_head() -> None:
    """Print the table's first line."""
    print("  ".join(_pad(name, width) for name, width in _COLUMNS), flush=True)


def print_row(title: str, server: str, measured: Measured | str, *, is_first: bool = True) -> None:
    """Print a row, or why there is none.

    Args:
        is_first: The first of these connections: with what opening them took.
    """
    cells: list[Any] = [title, server]
    note = measured if isinstance(measured, str) else measured.note
    if isinstance(measured, Measured):
        opened = measured.opened
        cells += [f"{measured.us_each:.3g}", f"{measured.per_second:,.0f}"]
        cells += [f"{measured.cpu / measured.wall:.2f}"]
        cells += [_ms(measured.p50), _ms(measured.p99)]
        cells += _of_opening(opened) if is_first else ["", "", ""]
        cells += [f"{measured.own_cpu / measured.wall:.0%}", f"{measured.others:.2f}"]
    padded = (_pad(cell, width) for cell, (_, width) in zip(cells, _COLUMNS, strict=False))
    print("  ".join((*padded, note)).rstrip(), flush=True)


def _of_opening(opened: Opened) -> list[str]:
    return [f"{opened.kb_each:.1f}", f"{opened.us_each:.0f}", f"{opened.per_second:,.0f}"]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _pad(cell: str, width: int) -> str:
    return f"{cell:<{abs(width)}}" if width in (45, -10) else f"{cell:>{width}}"
