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

The live feed is *held* as soon as something says that copies may be missing: a broken
connection, a new leader of the stream (the old one may have died with copies unsent), a tick
that didn't come, a leader that didn't answer, a sequence that leaves one out where everything
is received, or one that goes back. What comes is then kept, and a *repair* reads the log
unfiltered from the position to its end, matches here, delivers, and goes on with what was kept:
it costs what the hole holds, whatever the number of filters.

After a hole too large for that, or one of which the log has let something go, every feed is
behind and catches up by itself. Another log in place of the one followed ends the connections;
their clients come back with their cursors.

Source: docs/protocol.md, "The log"; NATS ADR-17 (republish).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import structlog

from jarvis_mesh.config.log import STREAM
from jarvis_mesh.config.nats_conf import CLIENT_SOURCE
from jarvis_mesh.gateway.interest import Interest, Interests
from jarvis_mesh.gateway.lane import Lane
from jarvis_mesh.gateway.log_pages import LogPages
from jarvis_mesh.gateway.log_reader import LogReader, LogState
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.page import Page
from jarvis_mesh.gateway.position import Position
from jarvis_mesh.gateway.stored_event import Place, StoredEvent, place_in_log
from jarvis_mesh.gateway.tail import Tail
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError
from jarvis_mesh.schema.filters import ANY, Filter
from jarvis_mesh.schema.subjects import LIVE_PREFIX, TICK_FAMILY, encode_token

TICK_WITHIN: Final = 5.0
"""Seconds for a tick to come back; a failover of the stream takes 4 to 9."""
MAX_REPAIR: Final = 10_000
"""Sequences of a hole that is repaired here; beyond, clients catch up by themselves."""
MAX_SHORT_ANSWERS: Final = 4
"""Repairs in a row whose log ends before the position, until that counts as a reset."""
_MAX_HELD: Final = 20_000
_PREFIX: Final = LIVE_PREFIX.encode()
_TICKS: Final = f"{LIVE_PREFIX}{TICK_FAMILY}.tick.>"
_LEADER_ELECTED: Final = f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}"

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who serves the clients."""

    def on_hole(self) -> None:
        """Let all be behind, now: the position is where they have everything up to."""

    def on_another_log(self, reason: str) -> None:
        """End all connections: their cursors can't be continued here ("epoch", "reset")."""


class LiveFeed:
    """Receives live copies over *nats* and gives them to the sinks of the interests.

    Args:
        nats: The connection for live copies alone.
        here: Asks for the log's state over *nats*.
        pages: Reads the log over another connection.
        name: The gateway's, in the subject of its ticks. A name that stays the same over
            restarts keeps the number of subjects in the log low.
        listener: Is told what its clients have to know.
    """

    def __init__(
        self,
        nats: NatsConnection,
        here: LogReader,
        pages: LogPages,
        name: str,
        listener: Listener,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.epoch = ""
        """Identity of the log; empty until it is known."""
        self.last_tick_seq = 0
        self.held = asyncio.Event()
        """Set while copies are kept back: `repair` is to be called."""
        self._barriers: Lane[LogState] = Lane(clock)
        self._nats = nats
        self._here = here
        self._pages = pages
        self._listener = listener
        self._metrics = metrics
        self._interests = Interests(nats, self._receive)
        self._tail = Tail()
        self._held: list[tuple[Place, bytes, bytes]] = []
        self._holds = 0
        self._last_received = 0
        self._short_answers = 0
        self._position = Position()
        self._tick_subject = f"{TICK_FAMILY}.tick._.{CLIENT_SOURCE}.{encode_token(name)}._._"

    @property
    def position(self) -> int:
        """Every copy up to this sequence that an interest is for has been delivered."""
        return self._position.seq

    async def open(self) -> None:
        """Subscribe to ticks and elections. Once: nats-py renews them after a reconnect."""
        await self._nats.listen(_TICKS, self._receive)
        await self._nats.listen(_LEADER_ELECTED, lambda *_advisory: self.hold("leader"))

    # Interests

    async def acquire(self, filters: Iterable[Filter]) -> list[Interest]:
        """Return the interests of *filters*, each used once more; `barrier` puts them in force.

        Raises:
            UnavailableError: no connection to NATS.
        """
        self._require_connection()
        return await self._interests.acquire(filters)

    async def release(self, interests: Iterable[Interest]) -> None:
        """Use each of *interests* once less."""
        await self._interests.release(interests)

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
        return self._tail.page(after_seq, self.position)

    # Position

    async def reached(self, seq: int) -> None:
        """Return once the position is at least *seq*.

        Raises:
            DeadlineError: not within 5 s.
        """
        try:
            await self._position.reached(seq, within=TICK_WITHIN)
        except TimeoutError:
            raise DeadlineError("the live feed doesn't follow the log; try again soon") from None

    async def run(self) -> None:
        """Pass barriers, until cancelled."""
        await self._barriers.run()

    async def barrier(self) -> LogState:
        """Return the log's state, once interests made before are in force and the position has
        reached that state. All who ask meanwhile share the next one.

        Raises:
            UnavailableError, DeadlineError: NATS is away, or the stream has no leader.
        """
        return await self._barriers.do("barrier", self._pass_barrier)

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
        self._pages.drop_before(state.first_seq)
        self._tail.drop_before(state.first_seq)

    async def _pass_barrier(self) -> LogState:
        self._require_connection()
        new = tuple(self._interests.incomplete)
        # Not nats-py's flush: after a reconnect its PONGs can answer older PINGs.
        state = await self._here.state()
        self.observe(state)
        if state.last_seq > self.position:
            await self.tick()
            await self.reached(state.last_seq)
        self._interests.complete(new, self.position)
        return state

    def _require_connection(self) -> None:
        if not self._nats.is_connected:
            raise UnavailableError("the gateway has no connection to NATS; try again soon")

    # Copies

    def _receive(self, subject: bytes, headers: bytes, body: bytes) -> None:
        place = place_in_log(headers)
        if place is None or _PREFIX + place.subject.encode() != subject:
            self._metrics.drop("foreign")
            log.warning("a message on live.> is no copy of the log", subject=bytes(subject))
            return
        if place.seq < self._last_received:
            self.hold("order")  # sequences never go back on one connection: another log?
        self._last_received = place.seq
        if not self.held.is_set() and self._leaves_one_out(place.seq):
            self.hold("sequence")
        if self.held.is_set():
            self._keep(place, headers, body)
        else:
            self._deliver(place, headers, body)

    def _leaves_one_out(self, seq: int) -> bool:
        """Say whether copies before *seq* are missing, which only who gets all can know."""
        if seq <= self.position + 1:
            return False
        everything = self._interests.get(ANY)
        return everything is not None and everything.complete_after is not None

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
        self._position.move_to(event.seq)

    # Holes

    def hold(self, reason: str) -> None:
        """Keep back what comes until a `repair` that begins after this.

        Args:
            reason: "connection", "leader", "silence", "tick", "sequence" or "order".
        """
        self._holds += 1
        if reason == "connection":
            self._held.clear()  # the repair reads it all from the log
            self._last_received = 0
        if not self.held.is_set():
            self._metrics.resync(reason)
            self.held.set()

    def _keep(self, place: Place, headers: bytes, body: bytes) -> None:
        self._held.append((place, headers, body))
        if len(self._held) > _MAX_HELD:
            self._held.clear()
            self._holds += 1  # the repair that comes after this reads them from the log

    async def repair(self) -> None:
        """Deliver what was missed, then what was held.

        Raises:
            UnavailableError, DeadlineError: the log can't be read; call again.
        """
        holds = self._holds
        # Over the same connection, after its subscriptions: copies after that state will come.
        state = await self._here.state()
        self.observe(state)
        self._check_end(state)
        await self._read_hole(state.last_seq)
        if self._holds != holds:
            return  # there is another reason by now: what comes is held for the next repair
        self.held.clear()
        held, self._held = self._held, []
        for place, headers, body in held:
            self._deliver(place, headers, body)
        log.info("live feed repaired", position=self.position)

    def _check_end(self, state: LogState) -> None:
        """Find out whether the log has lost its end: then it stays behind the position."""
        if state.last_seq >= self.position:
            self._short_answers = 0
            return
        self._short_answers += 1
        if self._short_answers < MAX_SHORT_ANSWERS:
            # A new leader answers before it has applied all that was acknowledged.
            raise UnavailableError("the log's leader hasn't got as far as its copies yet")
        log.warning("the log was reset", last_seq=state.last_seq, position=self.position)
        self._short_answers = 0
        self._start_over("reset")

    async def _read_hole(self, last_seq: int) -> None:
        while self.position < last_seq:
            if last_seq - self.position > MAX_REPAIR:
                self._skip_to(last_seq)
                return
            page = await self._pages.page(self.position, last_seq)
            if any(page.holes(self.position)):
                self._skip_to(last_seq)  # what has expired is each feed's own gap
                return
            for event in page.events:
                if self.position < event.seq:
                    self._spread(event)
            self._position.move_to(page.upto_seq)

    def _skip_to(self, last_seq: int) -> None:
        """Let every feed catch up by itself, from the position as it was."""
        self._listener.on_hole()
        self._interests.forget()
        self._tail.reset(last_seq)
        self._position.move_to(last_seq)

    def _start_over(self, reason: str) -> None:
        self._tail.reset(0)
        self._interests.forget()
        self._position.start_over()
        self.last_tick_seq = self._last_received = 0
        self._held.clear()
        self._listener.on_another_log(reason)


def _give(event: StoredEvent, interest: Interest) -> None:
    for sink in tuple(interest.sinks):  # a client that is too slow leaves meanwhile
        if sink.last_seq < event.seq:
            sink.last_seq = event.seq
            sink.deliver(event)
