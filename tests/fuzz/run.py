"""A run: attacks from a seed, many at once, while clients and gateway are looked at."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jarvis_mesh.schema import SystemClock
from tests.fuzz.attack import Attack, Hostile, UnansweredError, address
from tests.fuzz.frames import socket_attack
from tests.fuzz.requests import http_attack
from tests.fuzz.watch import Holdings
from tests.fuzz.world import World, all_running, world

AT_ONCE: Final = 16
"""Hostile connections at a time."""
SETTLES: Final = 30.0
"""Seconds after the last attack until nothing is left of the attackers."""
GROWTH_MIB: Final = 16.0
"""What its memory may grow by in the second half of a run; in the first its caches fill."""
WARM_AFTER: Final = 120.0
"""Seconds that this takes: of a run shorter than twice that, memory says nothing."""
STRETCHES: Final = 4
"""Of a run that is shorter than as many minutes."""
SPARE_FILES: Final = 2
"""What a gateway may open once: a lookup, a file of its own."""
MAX_COMPLAINTS: Final = 10
_CLOCK = SystemClock()


@dataclass
class Outcome:
    """How a run went."""

    seed: int
    attacks: Counter[str] = field(default_factory=Counter)
    """By kind."""
    rss_mib: list[float] = field(default_factory=list)
    """The least of each stretch: what comes and goes with a large message isn't kept."""
    received: int = 0
    """Events that honest clients got."""
    published: int = 0
    lateness: list[float] = field(default_factory=list)
    hostile_events: int = 0
    log_bytes: int = 0
    complaints: list[str] = field(default_factory=list)
    """What went wrong."""


class Run:
    """One run.

    Args:
        number: Of the one attack to carry out; `None` for all.
        tell: Is given a line a stretch.
    """

    def __init__(
        self, seed: int, minutes: float, tell: Callable[[str], None], number: int | None = None
    ) -> None:
        self.outcome = Outcome(seed)
        self._seconds = minutes * 60
        self._tell = tell
        self._number = number
        self._next = 0 if number is None else number

    async def run(self, folder: Path) -> Outcome:
        """Fuzz; what the processes write is in *folder*."""
        async with world(folder, random.Random(self.outcome.seed)) as made, all_running(made):
            before = await made.watch.holdings()
            async with asyncio.TaskGroup() as tasks:
                rounds = tasks.create_task(made.rounds.run())
                publishing = tasks.create_task(made.publisher.run())
                async with asyncio.TaskGroup() as attacking:
                    looking = attacking.create_task(self._look(made))
                    for _ in range(AT_ONCE if self._number is None else 1):
                        attacking.create_task(self._attack(made, looking))
                publishing.cancel()
                await self._settle(made, before)
                rounds.cancel()
            await self._check_clients(made)
        return self.outcome

    # Attacking

    async def _attack(self, made: World, looking: asyncio.Task[None]) -> None:
        while not looking.done():
            number, self._next = self._next, self._next + 1
            dice = random.Random(f"{self.outcome.seed}/{number}")
            make = dice.choice((socket_attack, http_attack))
            attack = make(dice, made.tokens)
            self.outcome.attacks[attack.kind] += 1
            await self._carry_out(attack, made.port, address(dice), number)
            if self._number is not None:
                return

    async def _carry_out(self, attack: Attack, port: int, origin: str, number: int) -> None:
        try:
            await Hostile(attack, port, origin).run()
        except UnansweredError as error:
            self._complain(f"attack {number} ({attack.kind}, {attack.ending.value}): {error}")
        except ConnectionRefusedError:
            self._complain(f"attack {number}: nobody listens")
            await _CLOCK.sleep(1)

    # Looking

    async def _look(self, made: World) -> None:
        """Look at the gateway until the time is over, or too much is wrong."""
        stretch = min(60.0, self._seconds / STRETCHES)
        began = _CLOCK.monotonic()
        due, least = began + stretch, math.inf
        while _CLOCK.monotonic() < began + self._seconds and not self._is_hopeless(made):
            await _CLOCK.sleep(0.25)
            if made.watch.has_ended:
                return
            least = min(least, made.watch.rss_mib())
            for complaint in made.watch.complaints():
                self._complain(complaint)
            if _CLOCK.monotonic() >= due:
                due += stretch
                self.outcome.rss_mib.append(least)
                least = math.inf
                self._tell(self._describe(made))

    def _is_hopeless(self, made: World) -> bool:
        return (
            len(self.outcome.complaints) >= MAX_COMPLAINTS
            or made.watch.has_ended
            or any(client.complaints for client in made.clients)
        )

    def _describe(self, made: World) -> str:
        outcome = self.outcome
        recent = [late for client in made.clients for late in client.lateness[-1_000:]]
        p99 = statistics.quantiles(recent, n=100)[98] if len(recent) > 1 else 0.0
        return (
            f"{outcome.attacks.total():,} attacks, {made.publisher.published:,} hostile events, "
            f"{sum(client.received for client in made.clients):,} honest ones received, "
            f"p99 {p99 * 1e3:.0f} ms late; memory {outcome.rss_mib[-1]:.1f} MiB"
        )

    def _complain(self, what: str) -> None:
        self.outcome.complaints.append(what)
        self._tell(f"WRONG: {what}")

    # Afterwards

    async def _settle(self, made: World, before: Holdings) -> None:
        """Check that nothing is left of the attackers."""
        allowed = Holdings(
            before.connections,
            before.subscriptions,
            before.files + SPARE_FILES,
            before.nats_subscriptions,
        )
        deadline = _CLOCK.monotonic() + SETTLES
        while not made.watch.has_ended and (now := await made.watch.holdings()).exceeds(allowed):
            if _CLOCK.monotonic() > deadline:
                self._complain(f"{SETTLES:g} s after the last attack it holds {now}, not {before}")
                return
            await _CLOCK.sleep(0.2)

    async def _check_clients(self, made: World) -> None:
        outcome, published = self.outcome, made.rounds.published
        deadline = _CLOCK.monotonic() + SETTLES
        while any(client.received < published and not client.complaints for client in made.clients):
            if _CLOCK.monotonic() > deadline:
                break
            await _CLOCK.sleep(0.05)
        for client in made.clients:
            if client.received != published:
                client.complaints.append(f"got {client.received:,} of {published:,} events")
            for complaint in client.complaints:
                self._complain(f"honest client {client.user} ({client.form}) {complaint}")
            outcome.lateness += client.lateness
            outcome.received += client.received
        for complaint in made.watch.complaints():
            self._complain(complaint)
        outcome.published, outcome.log_bytes = published, made.watch.log_bytes
        outcome.hostile_events = made.publisher.published
        self._check_memory()

    def _check_memory(self) -> None:
        memory = self.outcome.rss_mib
        if self._seconds < 2 * WARM_AFTER or len(memory) < 2:
            return
        if memory[-1] - memory[(len(memory) - 1) // 2] > GROWTH_MIB:
            self._complain(f"its memory grows: {', '.join(f'{mib:.1f}' for mib in memory)} MiB")
