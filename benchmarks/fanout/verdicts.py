"""The claims, each with its bound and what this run measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.fanout.results import Measured, Opened, Results

PEERS = ("nats", "socketio", "starlette")
QUIET = 0.1
"""Cores that others may use."""
_OPENED = ("full", "10000")
"""1,000 connections, and 10,000; the worse counts."""


class UnmeasuredError(Exception):
    """A row that the claim is about isn't there."""


class FailedRowError(Exception):
    """A row that the claim is about counted wrong deliveries."""


def print_verdicts(results: Results, *, is_partial: bool) -> None:
    """Print a line for each claim: the bound, the figure, met or not.

    Args:
        is_partial: Only some rows were asked for; claims about others aren't worth a line.
    """
    print()
    for claim, bound, figure in _CLAIMS:
        try:
            value, is_met = figure(_Rows(results))
            verdict = "met" if is_met else "NOT MET"
        except UnmeasuredError as error:
            if is_partial:
                continue
            value, verdict = "", f"not measured: no row of {error}"
        except FailedRowError as error:
            value, verdict = "", f"NOT MET: {error} failed"
        print(f"{claim:<62}  {bound:>8}  {value:>15}  {verdict}")
    if results and (busy := statistics.mean(row.others for row in results.values())) > QUIET:
        print(f"\nOther programs used {busy:.1f} cores meanwhile: don't trust these figures.")


class _Rows:
    def __init__(self, results: Results) -> None:
        self._results = results

    def row(self, load: str, server: str = "ours-cbor") -> Measured:
        """Return a row whose deliveries are all right."""
        found = self._any_row(load, server)
        if found.failure:
            raise FailedRowError(f"{load} of {server}")
        return found

    def opened(self, load: str) -> Opened:
        """Return what opening our connections took; that they then got too few is no matter."""
        return self._any_row(load, "ours-cbor").opened

    def _any_row(self, load: str, server: str) -> Measured:
        found = self._results.get((load, server))
        if found is None:
            raise UnmeasuredError(f"{load} of {server}")
        return found


Value = Callable[[_Rows], float]
Figure = Callable[[_Rows], tuple[str, bool]]


def _at_most(value: Value, bound: float, form: str = "{:.2f}") -> Figure:
    return lambda rows: (form.format(got := value(rows)), got <= bound)


def _at_least(value: Value, bound: float, form: str = "{:.2f}") -> Figure:
    return lambda rows: (form.format(got := value(rows)), got >= bound)


def _cost(load: str, server: str, *, to: str) -> Value:
    """How many times as much a delivery of one server costs as that of another."""
    return lambda rows: rows.row(load, server).us_each / rows.row(load, to).us_each


def _carried(load: str, within_ms: float) -> Figure:
    """Two millions a second, and the latency: less came if the end of it came later."""

    def figure(rows: _Rows) -> tuple[str, bool]:
        row = rows.row(load)
        assert row.p99 is not None
        text = f"{row.per_second / 1e6:.2f} M, {row.p99:.0f} ms"
        return text, row.per_second >= 1.95e6 and row.p99 <= within_ms

    return figure


def _p99_ratio(rows: _Rows) -> float:
    best = min(_p99(rows.row("p99", peer)) for peer in PEERS)
    return _p99(rows.row("p99")) / best


def _p99(row: Measured) -> float:
    assert row.p99 is not None
    return row.p99


def _kb_each(rows: _Rows) -> float:
    return max(rows.opened(load).kb_each for load in _OPENED)


def _handshake(rows: _Rows) -> float:
    return max(rows.opened(load).us_each for load in _OPENED)


_CLAIMS: Final[Sequence[tuple[str, str, Figure]]] = (
    (
        "full load, 1,000 connections: CPU per delivery",
        "≤ 0.3 µs",
        _at_most(lambda rows: rows.row("full").us_each, 0.3),
    ),
    (
        "full load: deliveries per CPU-second, to those of nats",
        "≥ 5 ×",
        _at_least(_cost("full", "nats", to="ours-cbor"), 5),
    ),
    (
        "full load: deliveries per CPU-second, to those of socketio",
        "≥ 30 ×",
        _at_least(_cost("full", "socketio", to="ours-cbor"), 30),
    ),
    (
        "full load: cost of JSON clients, to that of CBOR ones",
        "≤ 1.5 ×",
        _at_most(_cost("full", "ours-json", to="ours-cbor"), 1.5),
    ),
    (
        "light load: cost of a delivery, to that of floor",
        "≤ 1.5 ×",
        _at_most(_cost("light", "ours-cbor", to="floor"), 1.5),
    ),
    (
        "light load: cost of a delivery, to that of nats",
        "≤ 0.6 ×",
        _at_most(_cost("light", "ours-cbor", to="nats"), 0.6),
    ),
    (
        "light load: cost of a delivery, to that of socketio",
        "≤ 0.6 ×",
        _at_most(_cost("light", "ours-cbor", to="socketio"), 0.6),
    ),
    ("2 M deliveries/s to 1,000 connections: p99", "≤ 100 ms", _carried("2m", 100)),
    ("2 M deliveries/s to 10,000 connections: p99", "≤ 400 ms", _carried("10000-2m", 400)),
    (
        "own filter each, fan-out 1: cost of an event, to that of nats",
        "≤ 1.5 ×",
        _at_most(_cost("own", "ours-cbor", to="nats"), 1.5),
    ),
    (
        "100 events/s, 1,000 connections: p99, to the best peer's",
        "≤ 1.1 ×",
        _at_most(_p99_ratio, 1.1),
    ),
    ("memory for a connection", "≤ 10 KB", _at_most(_kb_each, 10, "{:.1f}")),
    ("CPU for a handshake", "≤ 300 µs", _at_most(_handshake, 300, "{:.0f}")),
    (
        "10,000 connections: accepted a second",
        "≥ 2,500",
        _at_least(lambda rows: rows.opened("10000").per_second, 2_500, "{:,.0f}"),
    ),
)
