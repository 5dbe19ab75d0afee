"""What is measured: from 1,000 connections, 250 B, one filter, one thing changes at a time."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.fanout.dialects import Filters

ALL = ("ours-cbor", "ours-json", "nats", "socketio", "starlette", "floor")
EACH = ("ours-cbor", "nats", "socketio", "starlette", "floor")
OURS = ("ours-cbor",)


@dataclass(frozen=True)
class Load:
    """A row of the table: events published in one way."""

    name: str
    title: str
    rate: float | None
    """Events a second; `None` publishes as fast as the slowest connection takes them."""
    seconds: float
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Connections of one kind, and the loads that they get one after the other.

    A load that a server can't carry comes last: what it leaves undone ends the case.
    """

    loads: tuple[Load, ...]
    connections: int = 1000
    body_bytes: int = 250
    filters: Filters = "one"


def _full(name: str, title: str, servers: tuple[str, ...] = EACH, seconds: float = 3) -> Load:
    return Load(name, title, None, seconds, servers)


CASES = (
    Case(
        (
            Load("light", "light: 25 events/s", 25, 5, ALL),
            Load("p99", "latency: 100 events/s", 100, 4, EACH),
            _full("full", "full load", ALL),
            Load("2m", "2,000 events/s", 2_000, 4, OURS),
        )
    ),
    Case((_full("100", "100 connections, full load"),), connections=100),
    Case((_full("4000", "4,000 connections, full load"),), connections=4_000),
    Case(
        (
            _full("10000", "10,000 connections, full load"),
            Load("10000-2m", "10,000 connections, 210 events/s", 210, 6, OURS),
        ),
        connections=10_000,
    ),
    Case(
        (
            Load(
                "own",
                "own user: filter each, 8,000 events/s in all",
                8_000,
                4,
                ("ours-cbor", "nats", "socketio"),
            ),
        ),
        filters="own",
    ),
    Case(
        (_full("50", "50 filters each, full load", ("ours-cbor", "socketio")),),
        filters="fifty",
    ),
    Case((_full("64b", "64 B of payload, full load"),), body_bytes=64),
    Case((_full("16k", "16 KiB, full load"),), body_bytes=16 * 1024),
)
