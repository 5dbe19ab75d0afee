"""A gateway without sockets that obeys the protocol's rules and takes every liberty they give.

It has a log, a position that trails it, and one client; a test drives it step by step. What it
says waits in `wire` until the test delivers it, or cuts the connection.

Source: docs/protocol.md, "Whose is an event?" and "Promises".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from jarvis_mesh.client.formats import Arrival, Item
from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.cursor import Cursor, parse_cursor
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.filters import Filter
from jarvis_mesh.schema.wire import (
    Gap,
    Heartbeat,
    Lagging,
    Live,
    Request,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

EPOCH = "1700000000000000000"


@dataclass
class Served:
    """One subscription, as the gateway has it."""

    sub: str
    filters: tuple[Filter, ...]
    sent: int
    """Everything that matches was sent up to here."""
    is_live: bool

    def matches(self, event: Event) -> bool:
        return any(each.matches(event.subject.split(".")) for each in self.filters)


class SimulatedGateway:
    """The log survives; the rest is of one connection."""

    def __init__(self) -> None:
        self.log: dict[int, Event] = {}
        self.last_seq = 0
        self.first_seq = 1
        self.position = 0
        self.is_lagging = False
        self.requests: deque[Request] = deque()
        self.wire: deque[Item] = deque()
        self.served: dict[str, Served] = {}

    @property
    def is_replaying(self) -> bool:
        """Whether a subscription isn't live yet."""
        return any(not each.is_live for each in self.served.values())

    def append(self, event: Event) -> None:
        """Store an event."""
        self.last_seq += 1
        self.log[self.last_seq] = event

    def expire(self, count: int) -> None:
        """Remove events from the log's front: only those that every live feed has passed."""
        self.first_seq = min(self.first_seq + count, self.position + 1)
        for seq in tuple(self.log):
            if seq < self.first_seq:
                del self.log[seq]

    def disconnect(self) -> None:
        """Forget the client, and what it said or was told that is still on its way."""
        self.requests.clear()
        self.wire.clear()
        self.served.clear()
        self.is_lagging = False

    def read_request(self, overlap: int = 0) -> None:
        """Answer what the client said next.

        Args:
            overlap: How far before the client's cursor it begins, though it needn't.
        """
        if self.requests:
            match self.requests.popleft():
                case Subscribe() as request:
                    self._open(request, overlap)
                case Unsubscribe(sub=sub):
                    self.served.pop(sub, None)

    def _open(self, request: Subscribe, overlap: int) -> None:
        cursor, gap = Cursor(EPOCH, self.position), None
        if request.since == "start":
            cursor = Cursor(EPOCH, self.first_seq - 1)
        elif request.since is not None:
            cursor = parse_cursor(request.since)
            gap = self._gap_after(cursor)
            if gap is None:
                cursor = cursor.at(max(cursor.seq - overlap, self.first_seq - 1))
        filters = tuple(parse_channel(channel) for channel in request.channels)
        served = Served(request.sub, filters, cursor.seq, request.since is None)
        self.served[request.sub] = served
        patterns = [each.pattern for each in filters]
        self.wire.append(Subscribed(sub=request.sub, filters=patterns, cursor=str(cursor)))
        if gap is not None:
            self._skip(served, gap)

    def _gap_after(self, cursor: Cursor) -> int | None:
        return self.first_seq - 1 if cursor.seq + 1 < self.first_seq else None

    def _skip(self, served: Served, to: int) -> None:
        after = str(Cursor(EPOCH, to))
        gap = Gap(sub=served.sub, from_=served.sent + 1, to=to, reason="expired", cursor=after)
        self.wire.append(gap)
        served.sent = to

    def send_live(self) -> None:
        """Let the position follow the log by one event, which goes to who is live."""
        if self.position == self.last_seq:
            return
        self.position += 1
        event = self.log[self.position]
        live = [each for each in self.served.values() if each.is_live]
        if any(each.matches(event) for each in live):
            self.wire.append(Arrival(self.position, None, event, 1))

    def replay(self, which: int, *, past_position: bool) -> None:
        """Send the next event to one that isn't live yet, or let it join the live feed."""
        replaying = [each for each in self.served.values() if not each.is_live]
        if not replaying:
            return
        served = replaying[which % len(replaying)]
        if served.sent + 1 < self.first_seq:
            self._skip(served, self.first_seq - 1)
            return
        end = self.last_seq if past_position else self.position
        for seq in range(served.sent + 1, end + 1):
            served.sent = seq
            if served.matches(self.log[seq]):
                self.wire.append(Arrival(seq, served.sub, self.log[seq], 1))
                return
        self._join(served)

    def _join(self, served: Served) -> None:
        served.is_live = True
        cursor = Cursor(EPOCH, max(served.sent, self.position))
        self.wire.append(Live(sub=served.sub, cursor=str(cursor), replayed=0))

    def heartbeat(self) -> None:
        """Say where the position is, unless lagging."""
        if not self.is_lagging:
            self.wire.append(Heartbeat(cursor=str(Cursor(EPOCH, self.position))))

    def lag(self) -> None:
        """Fall behind, or be live again."""
        if self.is_lagging:
            self.wire.append(Live(cursor=str(Cursor(EPOCH, self.position))))
        else:
            self.wire.append(Lagging(behind=1))
        self.is_lagging = not self.is_lagging
