"""Which events are kept until the log has them, and when each is sent again. No network, no timers.

An event waits for room, is admitted, sent, and leaves with its answer. The window is bounded in
events and in bytes, and it keeps the order of admission:

    open      whatever is admitted is sent at once;
    probing   after a lost connection, a refusal or a missing answer: everything counts as
              unsent, and only the oldest event is tried until the log takes it. Then all the
              others follow, in order.

Sending one event instead of all is what keeps the order when the log refuses a few in the
middle, and a server that just came up from being flooded. What was stored the first time is
dropped by JetStream: the event's id is its `Nats-Msg-Id`.

Source: docs/protocol.md, "Events"; NATS ADR-22 (publish retries).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

ACK_TIMEOUT: Final = 5.0
"""Seconds without an answer after which an event is tried again; an election takes 4 to 9."""
RETRY_PAUSE: Final = 0.25
"""Seconds between two tries while the log refuses."""


@dataclass(frozen=True, slots=True)
class Published:
    """An event that is in the log."""

    id: str
    seq: int
    """Its stream sequence."""


@dataclass(slots=True, eq=False)
class Pending:
    """An event that isn't known to be in the log yet."""

    event_id: str
    subject: str
    body: bytes
    deadline: float
    """Monotonic time after which it isn't tried any more."""
    ack: asyncio.Future[Published]
    admitted: asyncio.Future[None] | None = None
    """Done once there is room for it, if somebody waits for that."""
    token: str = ""
    sent_at: float | None = None
    unanswered: int = 0
    """Tries whose outcome isn't known: while there are any, it may be in the log."""
    refusal: str = ""
    """What the log said last when it wouldn't take it."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """How much a publisher keeps."""

    max_events: int = 1_000
    """A thousand keep a connection busy: 26,000 events/s."""
    max_bytes: int = 8 * 1024 * 1024
    """Sum of the message bodies. A single larger one is taken when nothing else is kept."""


@dataclass(slots=True)
class Window:
    """The events of one publisher that the log hasn't confirmed."""

    limits: WindowLimits = field(default_factory=WindowLimits)
    _unacked: dict[str, Pending] = field(default_factory=dict)
    """By token, in order of admission."""
    _unsent: deque[Pending] = field(default_factory=deque)
    _waiting: deque[Pending] = field(default_factory=deque)
    _bytes: int = 0
    _probing: bool = False
    _not_before: float = 0.0
    _admitted: int = 0

    def __len__(self) -> int:
        return len(self._unacked) + len(self._waiting)

    def has_room(self, size_bytes: int) -> bool:
        """Say whether an event with a body of *size_bytes* would be admitted at once."""
        return not self._waiting and self._fits(size_bytes)

    def offer(self, pending: Pending) -> None:
        """Admit *pending*, or let it wait until there is room and its turn has come."""
        if self.has_room(len(pending.body)):
            self._admit(pending)
        else:
            self._waiting.append(pending)

    def next_due(self, now: float) -> Pending | None:
        """Return the event to send now and count it as sent; `None` when there is none."""
        if self._probing and (now < self._not_before or self._probe_is_out()):
            return None
        while self._unsent:
            pending = self._unsent.popleft()
            if pending.token not in self._unacked:
                continue
            if pending.ack.cancelled():
                self.remove(pending)
                continue
            pending.sent_at = now
            pending.unanswered += 1
            return pending
        return None

    def settle(self, token: str) -> Pending | None:
        """Return the event that the log has confirmed, removed; `None` if it is unknown."""
        pending = self._unacked.get(token)
        if pending is not None:
            self._probing = False
            self.remove(pending)
        return pending

    def refuse(
        self, token: str, reason: str, now: float, *, undecided: bool = False
    ) -> Pending | None:
        """Note that the log wouldn't take an event, and try again after a pause.

        Args:
            undecided: It may be in the log all the same, as if there had been no answer.
        """
        pending = self._unacked.get(token)
        if pending is None:
            return None
        pending.refusal = reason
        if not undecided:
            pending.unanswered = max(0, pending.unanswered - 1)
        if not self._probing or pending is self._oldest():
            self.rewind(now, pause=RETRY_PAUSE)
        return pending

    def rewind(self, now: float, *, pause: float = 0.0) -> None:
        """Count everything as unsent, and try the oldest event alone after *pause* seconds."""
        self._probing = True
        self._not_before = now + pause
        self._unsent = deque(self._unacked.values())
        for pending in self._unsent:
            pending.sent_at = None

    def expire(self, now: float) -> list[Pending]:
        """Return the events whose time is over, removed; and rewind if an answer is overdue.

        Also forgets events whose future was cancelled: nobody wants them any more.
        """
        over = [pending for pending in self._all() if pending.deadline <= now]
        for pending in self._all():
            if pending.deadline <= now or pending.ack.cancelled():
                self.remove(pending)
        oldest = self._oldest()
        if oldest and oldest.sent_at is not None and now - oldest.sent_at >= ACK_TIMEOUT:
            self.rewind(now)
        return over

    def remove(self, pending: Pending) -> None:
        """Forget *pending*, and admit those that waited for its room. Idempotent."""
        if self._unacked.pop(pending.token, None) is not None:
            self._bytes -= len(pending.body)
        elif pending in self._waiting:
            self._waiting.remove(pending)
        while self._waiting and self._fits(len(self._waiting[0].body)):
            self._admit(self._waiting.popleft())

    def on_subject(self, subject: str) -> list[Pending]:
        """Return the events sent on *subject*, compared as NATS errors write it: lower-cased."""
        return [item for item in self._unacked.values() if item.subject.lower() == subject]

    def clear(self) -> list[Pending]:
        """Return all that is left, and forget it."""
        left = self._all()
        self._unacked.clear()
        self._unsent.clear()
        self._waiting.clear()
        self._bytes = 0
        return left

    def _fits(self, size_bytes: int) -> bool:
        if not self._unacked:
            return True
        return (
            len(self._unacked) < self.limits.max_events
            and self._bytes + size_bytes <= self.limits.max_bytes
        )

    def _admit(self, pending: Pending) -> None:
        self._admitted += 1
        pending.token = f"{self._admitted:x}"
        self._unacked[pending.token] = pending
        self._unsent.append(pending)
        self._bytes += len(pending.body)
        if pending.admitted is not None and not pending.admitted.done():
            pending.admitted.set_result(None)

    def _all(self) -> list[Pending]:
        return [*self._unacked.values(), *self._waiting]

    def _oldest(self) -> Pending | None:
        return next(iter(self._unacked.values()), None)

    def _probe_is_out(self) -> bool:
        oldest = self._oldest()
        return oldest is not None and oldest.sent_at is not None
