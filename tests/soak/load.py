"""Who publishes during a soak, with our own publishers, and what they were told became of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jarvis_mesh.publishers import EventPublisher
from jarvis_mesh.schema import SystemClock, new_id
from jarvis_mesh.schema.errors import MeshError, OutcomeUnknownError

SOURCES = ("agent-service", "terminal-service")
USERS = tuple(f"u{number}" for number in range(5))
SESSIONS = tuple(f"s{number}" for number in range(8))
AGENTS = tuple(f"a{number}" for number in range(6))
IMPATIENT = 0.03
"""Share of events whose publisher waits a second only, so that some fail during faults."""
LARGE = 0.05
"""Share of events of some kilobytes, which fill buffers."""
_CLOCK = SystemClock()


@dataclass
class Outcomes:
    """What the publishers were told, by event id."""

    stored: dict[str, int] = field(default_factory=dict)
    """Sequences, in the order of the calls as far as one source goes."""
    refused: dict[str, MeshError] = field(default_factory=dict)
    """Not in the log, they were told."""
    unknown: set[str] = field(default_factory=set)
    """May be in the log, or not."""
    pending: set[str] = field(default_factory=set)
    order: dict[str, list[str]] = field(default_factory=dict)
    """Ids in the order of the calls, by source and epoch."""

    def settle(self, event_id: str, future: asyncio.Future[Any]) -> None:
        """Note how a publication ended."""
        self.pending.discard(event_id)
        if future.cancelled():
            self.unknown.add(event_id)
        elif (error := future.exception()) is None:
            self.stored[event_id] = future.result().seq
        else:
            self.fail(event_id, error)

    def fail(self, event_id: str, error: BaseException) -> None:
        """Note that a publication failed."""
        self.pending.discard(event_id)
        if isinstance(error, OutcomeUnknownError):
            self.unknown.add(event_id)
        elif isinstance(error, MeshError):
            self.refused[event_id] = error
        else:
            raise error


class Load:
    """Publishers at a steady rate, which can be paused.

    Args:
        rate: Events a second, of all publishers.
        chance: Dice for what is published.
    """

    def __init__(self, publishers: Sequence[EventPublisher], rate: float, chance: random.Random):
        self.outcomes = Outcomes()
        self._publishers = publishers
        self._rate = rate / len(publishers)
        self._dice = [random.Random(chance.random()) for _ in publishers]
        self._going = asyncio.Event()
        self._era = 0

    async def run(self) -> None:
        """Publish until cancelled, whenever not paused."""
        self._going.set()
        async with asyncio.TaskGroup() as tasks:
            for publisher, dice in zip(self._publishers, self._dice, strict=True):
                tasks.create_task(self._publish(publisher, dice))

    async def pause(self) -> None:
        """Publish no more; return when what was published has its answer."""
        self._going.clear()
        for publisher in self._publishers:
            await publisher.flush()
        while self.outcomes.pending:  # who waited for room
            await _CLOCK.sleep(0.02)

    def resume(self, *, in_new_log: bool = False) -> None:
        """Go on."""
        self._era += in_new_log
        self._going.set()

    async def _publish(self, publisher: EventPublisher, dice: random.Random) -> None:
        due = _CLOCK.monotonic()
        while True:
            due = max(due + dice.expovariate(self._rate), _CLOCK.monotonic() - 0.2)
            await _CLOCK.sleep(due - _CLOCK.monotonic())
            await self._going.wait()
            await self._publish_one(publisher, dice)

    async def _publish_one(self, publisher: EventPublisher, dice: random.Random) -> None:
        event_type, payload = make_content(dice)
        event_id, outcomes = new_id(_CLOCK.time_ms()), self.outcomes
        outcomes.pending.add(event_id)
        outcomes.order.setdefault(f"{publisher.source}, log {self._era}", []).append(event_id)
        try:
            future = await publisher.send(
                event_type,
                payload,
                id=event_id,
                user=dice.choice(USERS),
                session=dice.choice((*SESSIONS, None)),
                timeout=1.0 if dice.random() < IMPATIENT else 60.0,
            )
        except MeshError as error:
            outcomes.fail(event_id, error)
        else:
            future.add_done_callback(lambda done: outcomes.settle(event_id, done))


def make_content(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a type and a payload for it."""
    size = dice.randrange(2_000, 16_000) if dice.random() < LARGE else dice.randrange(10, 300)
    payload = {"agentId": dice.choice(AGENTS), "text": dice.randbytes(size // 2).hex()}
    match dice.randrange(5):
        case 0:
            return "agent:created", payload
        case 1:
            return "agent:status", payload | {"status": "busy"}
        case 2:
            return "agent:task:started", payload | {"taskId": "t"}
        case 3:
            return "terminal:output", payload | {"terminalId": payload["agentId"], "output": "x"}
        case _:
            return "workflow:step:started", payload | {"workflowId": "w", "stepId": "s"}
