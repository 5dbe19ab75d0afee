"""A round: a fresh world, its faults in an order that the seed decides, and the books."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors

from jarvis_mesh.schema import SystemClock
from jarvis_mesh.schema.errors import MeshError
from tests.soak.books import Books, keep_books
from tests.soak.faults import (
    CLIENT_FAULTS,
    CLUSTER_FAULTS,
    FAULTS,
    GATEWAY_FAULTS,
    LONE_FAULTS,
)
from tests.soak.world import World, world
from tests.support.subscription import Violation

RATE = 400.0
"""Events published a second."""
CALM = (0.5, 2.5)
"""Seconds between slow faults."""
SHORT_CALM = (0.1, 0.5)
SHORT_LONE = (
    *GATEWAY_FAULTS,
    "nats-server SIGKILL",
    "nats-server SIGSTOP",
    "retention passes a reader",
    "retention passes replays",
)
SHORT_CLUSTER = ("stream leader SIGKILL",)
"""What the suite has time for; a failover takes 4 to 9 s."""
QUICK = (0.15, 0.6)
"""Seconds between faults of clients, which go on all the time."""
_CLOCK = SystemClock()


@dataclass(frozen=True)
class Plan:
    """What a round will do; wholly decided by its seed."""

    seed: str
    clustered: bool
    faults: tuple[str, ...]
    """The kinds of its slow faults, in order."""
    short: bool = False

    def dice(self, what: object) -> random.Random:
        """Return dice for one purpose, so that no purpose depends on the timing of another."""
        return random.Random(f"{self.seed}, {what}")


@dataclass
class Result:
    """How a round went."""

    plan: Plan
    books: Books
    violations: list[Violation]
    injected: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    lagged: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    tracebacks: int = 0
    """In the gateways' logs: told, not blamed, since they may be of a fault's own making."""

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        books = self.books
        broken = books.lost + books.duplicated + books.out_of_order + books.surplus
        return not (broken or self.violations or books.complaints) and books.balance


def plan_round(seed: int, number: int, *, short: bool = False) -> Plan:
    """Return the plan of a run's round: lone NATS and cluster by turns."""
    name, clustered = f"{seed}, round {number}", number % 2 == 1
    if short:
        kinds = list(SHORT_CLUSTER if clustered else SHORT_LONE)
    else:
        kinds = [*(CLUSTER_FAULTS if clustered else LONE_FAULTS), *GATEWAY_FAULTS]
    random.Random(name).shuffle(kinds)
    return Plan(name, clustered, tuple(kinds), short)


async def run_round(plan: Plan, folder: Path) -> Result:
    """Play a round; its processes write their logs into *folder*."""
    injected: Counter[str] = Counter()
    async with world(
        folder, plan.dice("world"), clustered=plan.clustered, rate=RATE, short=plan.short
    ) as made:
        await made.warm_up()
        async with asyncio.TaskGroup() as tasks:
            quick = tasks.create_task(_hurt_clients(made, plan, injected))
            failures = await _break_things(made, plan, injected)
            quick.cancel()
        stuck = await made.settle()
    books = keep_books(made)
    books.complaints[:0] = failures
    for follower in stuck:
        books.complain(f"{follower.name}: not live at the log's end after a minute")
    journal = made.journal
    return Result(
        plan,
        books,
        journal.violations,
        injected,
        journal.connections,
        journal.lagged,
        Counter(journal.closed),
        _count_tracebacks(folder),
    )


def _count_tracebacks(folder: Path) -> int:
    return sum(log.read_text().count("Traceback") for log in folder.glob("gateway-*.log"))


async def _break_things(made: World, plan: Plan, injected: Counter[str]) -> list[str]:
    """Inject the slow faults, one after the other; return what didn't get well again."""
    chance, failures = plan.dice("calm"), []
    calm = SHORT_CALM if plan.short else CALM
    for number, kind in enumerate(plan.faults):
        await _CLOCK.sleep(chance.uniform(*calm))
        injected[kind] += 1
        try:
            await FAULTS[kind](made, plan.dice(number))
            await made.ready()
        except (AssertionError, OSError, TimeoutError, nats.errors.Error, MeshError) as error:
            failures.append(f"{kind}, fault {number}: {error!r}")
    await _CLOCK.sleep(chance.uniform(*calm))
    return failures


async def _hurt_clients(made: World, plan: Plan, injected: Counter[str]) -> None:
    """Inject faults of clients all the time, several at once, until cancelled."""
    chance = plan.dice("clients")
    async with asyncio.TaskGroup() as tasks:
        while True:
            await _CLOCK.sleep(chance.uniform(*QUICK))
            kind = chance.choice(list(CLIENT_FAULTS))
            tasks.create_task(CLIENT_FAULTS[kind](made, random.Random(chance.random())))
            injected[kind] += 1
