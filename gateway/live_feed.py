"""The live feed of this process: copies in, in log order, and what they prove.

*Position* is the one number that everything rests on (see catchup.py): every copy up to it
that an interest is for has been delivered. It moves with a live copy that was received and
with a finished repair, never with the sequence that STREAM.INFO says, which can run ahead of
the copies.

A *tick* is an empty event of the gateways' own. Copies come in log order, so one that has
come back proves that everything stored before it has come too, whatever the filters are. A
*barrier* sends one when the log is ahead of the position: it ends with position and
subscriptions known to be in force, and a cursor that is said after it is never ahead of what
this gateway has seen.

A *repair* follows a break of the connection: copies are held while the log is read
unfiltered from the position on and matched here, so it costs what the hole holds, not what
the filters are. A hole too large for that, or another log in its place, ends the
connections; their clients come back with their cursors.

Source: docs/protocol.md, "The log"; NATS ADR-17 (republish).
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from jarvis_mesh.config.nats_conf import CLIENT_SOURCE
from jarvis_mesh.gateway.interest import Interest, Interests
from jarvis_mesh.gateway.log_reader import LogReader, LogState, Page
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.rounds import Rounds
from jarvis_mesh.gateway.stored_event import Place, StoredEvent, place_in_log
from jarvis_mesh.gateway.tail import Tail
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError
from jarvis_mesh.schema.filters import ANY, Filter
from jarvis_mesh.schema.subjects import LIVE_PREFIX, TICK_FAMILY, encode_token

TICK_WITHIN: Final = 5.0
"""Seconds for a tick to come back; a failover of the stream takes 4 to 9."""
MAX_REPAIR: Final = 10_000
"""Sequences of a hole that is repaired here; beyond, clients catch up by themselves."""
_MAX_HELD: Final = 20_000
_PREFIX: Final = LIVE_PREFIX.encode()
_TICKS: Final = f"{LIVE_PREFIX}{TICK_FAMILY}.tick.>"

log = structlog.get_logger(__name__)


class LiveFeed:
    """Receives live copies over *nats* and gives them to the sinks of the interests.

    Args:
        nats: The connection for live copies alone.
        reader: Reads the log over another connection.
        here: Asks for the log's state over *nats*.
        name: The gateway's, in the subject of its ticks. A name that stays the same over
            restarts keeps the number of subjects in the log low.
        on_break: Called with a reason when what was delivered so far can't be continued;
            every connection must end, and its client come back with its cursors.
    """

    def __init__(
        self,
        nats: NatsConnection,
        reader: LogReader,
        here: LogReader,
        name: str,
        on_break: Callable[[str], None],
    ) -> None:
        self.position = 0
        self.epoch = ""
        """Identity of the log; empty until it is known."""
        self.last_tick_seq = 0
        self.foreign = 0
        """Messages on live.> that aren't copies of our log: dropped."""
        self.barrier: Final = Rounds(self._pass_barrier)
        """Return the log's state, once interests made before are in force and the position
        has reached that state. Raises UnavailableError or DeadlineError."""
        self._nats = nats
        self._reader = reader
        self._here = here
        self._on_break = on_break
        self._interests = Interests()
        self._tail = Tail()
        self._held: list[tuple[Place, bytes, bytes]] | None = None
        self._breaks = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tick_subject = f"{TICK_FAMILY}.tick._.{CLIENT_SOURCE}.{encode_token(name)}._._"

    async def open(self) -> None:
        """Subscribe to ticks. Once: nats-py renews subscriptions after a reconnect."""
        await self._nats.listen(_TICKS, self._receive)

    # Interests

    async def acquire(self, filters: Iterable[Filter]) -> list[Interest]:
        """Return the interests of *filters*, each used once more; `barrier` puts them in force.

        Raises:
            UnavailableError: no connection to NATS.
        """
        self._require_connection()
        acquired, new = [], []
        for wanted in filters:
            interest = self._interests.get(wanted)
            if interest is None:
                interest = Interest(wanted)
                self._interests.add(interest)
                new.append(interest)
            interest.users += 1
            acquired.append(interest)
        try:
            for interest in new:
                interest.subscription = await self._nats.listen(
                    f"{LIVE_PREFIX}{interest.filter.pattern}", self._receive
                )
        except BaseException:
            await self.release(acquired)
            raise
        return acquired

    async def release(self, interests: Iterable[Interest]) -> None:
        """Use each of *interests* once less; unused ones are unsubscribed."""
        unused = []
        for interest in interests:
            interest.users -= 1
            if interest.users == 0:
                self._interests.remove(interest)
                unused.append(interest)
        for interest in unused:
            if interest.subscription is not None:
                await self._nats.unlisten(interest.subscription)

    def floor(self, interests: Sequence[Interest]) -> int | None:
        """Return above what the live feed vouches for all that *interests* are for.

        `None` while one of them is not in force.
        """
        floors = [self._tail.floor]
        for interest in interests:
            if interest.complete_after is None:
                return None
            floors.append(interest.complete_after)
        return max(floors)

    def tail_page(self, after_seq: int) -> Page:
        """Return the next copies above *after_seq*, which must not be below the floor."""
        return self._tail.page(after_seq)

    # Position

    async def reached(self, seq: int) -> None:
        """Return once the position is at least *seq*.

        Raises:
            DeadlineError: not within 5 s.
        """
        if self.position >= seq:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (seq, id(future), future))
        try:
            async with asyncio.timeout(TICK_WITHIN):
                await future
        except TimeoutError:
            raise DeadlineError("the live feed doesn't follow the log; try again soon") from None

    async def tick(self) -> None:
        """Publish a tick.

        Raises:
            UnavailableError: no connection to NATS.
        """
        self._require_connection()
        await self._nats.publish(self._tick_subject)

    def observe(self, state: LogState) -> None:
        """Note what STREAM.INFO says: another log in place of the one followed ends all feeds."""
        if self.epoch and state.epoch != self.epoch:
            log.warning("another log is in place of the one followed", epoch=state.epoch)
            self._start_over("epoch")
        self.epoch = state.epoch

    async def _pass_barrier(self) -> LogState:
        self._require_connection()
        new = [interest for interest in self._interests if interest.complete_after is None]
        # Not nats-py's flush: after a reconnect its PONGs can answer older PINGs.
        state = await self._here.state()
        self.observe(state)
        if state.last_seq > self.position:
            await self.tick()
            await self.reached(state.last_seq)
        for interest in new:
            interest.complete_after = self.position
        return state

    def _require_connection(self) -> None:
        if not self._nats.is_connected:
            raise UnavailableError("the gateway has no connection to NATS; try again soon")

    # Copies

    def _receive(self, subject: bytes, headers: bytes, body: bytes) -> None:
        place = place_in_log(headers)
        if place is None or _PREFIX + place.subject.encode() != subject:
            self.foreign += 1
            log.warning("a message on live.> is no copy of the log", subject=bytes(subject))
        elif self._held is not None:
            self._hold(place, headers, body)
        else:
            self._deliver(place, headers, body)

    def _deliver(self, place: Place, headers: bytes, body: bytes) -> None:
        # An event comes once for every interest that it matches. The first copy serves them
        # all, so that the position never stands on an event that some of them lack.
        if place.seq > self.position:
            self._spread(StoredEvent(place, headers, body))

    def _spread(self, event: StoredEvent) -> None:
        if event.is_tick:
            self.last_tick_seq = event.seq
        elif not event.is_hidden:
            for interest in self._interests.matching(event.tokens):
                _give(event, interest)
            self._tail.append(event)
        self._move_to(event.seq)

    def _move_to(self, seq: int) -> None:
        self.position = max(self.position, seq)
        while self._waiting and self._waiting[0][0] <= self.position:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    # Breaks

    async def on_disconnected(self) -> None:
        """Hold what comes until `repair`: the connection to NATS broke."""
        self._held = []
        self._breaks += 1

    def _hold(self, place: Place, headers: bytes, body: bytes) -> None:
        assert self._held is not None  # noqa: S101 - asked by the caller
        self._held.append((place, headers, body))
        if len(self._held) > _MAX_HELD:
            self._held.clear()
            self._break_off("resync", floor=place.seq)

    async def repair(self) -> None:
        """Deliver what was missed while the connection was broken, then what was held.

        Raises:
            UnavailableError, DeadlineError: the log can't be read; call again.
        """
        breaks = self._breaks
        # Over the new connection, after its subscriptions: copies after that state will come.
        state = await self._here.state()
        self.observe(state)
        # The position stands still meanwhile, so a log that ends before it has forgotten events.
        if state.last_seq < self.position:
            log.warning("the log was reset", last_seq=state.last_seq, position=self.position)
            self._start_over("reset")
        await self._read_hole(state)
        if self._breaks != breaks:
            return  # it broke again meanwhile: what comes is held for the next repair
        held, self._held = self._held or [], None
        for place, headers, body in held:
            self._deliver(place, headers, body)
        log.info("live feed repaired", position=self.position)

    async def _read_hole(self, state: LogState) -> None:
        while self.position < state.last_seq:
            start = self.position + 1
            too_large = state.last_seq - self.position > MAX_REPAIR
            page = None if too_large else await self._reader.page(ANY, start)
            if page is None or not page.events or page.events[0].seq > start:
                self._break_off("resync", floor=state.last_seq)
                self._move_to(state.last_seq)
                return
            for event in page.events:
                self._spread(event)

    def _start_over(self, reason: str) -> None:
        self.position = self.last_tick_seq = 0
        self._break_off(reason, floor=0)

    def _break_off(self, reason: str, *, floor: int) -> None:
        self._tail.reset(floor)
        for interest in self._interests:
            interest.complete_after = None
        self._on_break(reason)


def _give(event: StoredEvent, interest: Interest) -> None:
    for sink in tuple(interest.sinks):  # a client that is too slow leaves meanwhile
        if sink.last_seq < event.seq:
            sink.last_seq = event.seq
            sink.deliver(event)
