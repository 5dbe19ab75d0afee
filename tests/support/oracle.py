"""What a client may believe: the resume rule, kept as the protocol's page says and no otherwise.

A `Reading` judges one connection of a client, message by message: whatever breaks a promise is
blamed at once, with what led to it. What was never sent only the log can tell:
tests/soak/books.py compares with that.

No I/O here, and no code of ours: messages are plain maps, in the form that JSON has.

Source: docs/protocol.md, "Whose is an event?", "Slow readers", "Promises".
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.support.patterns import subject_of
from tests.support.subscription import (
    CURSOR,
    DUPLICATE,
    FOREIGN,
    ORDER,
    PROTOCOL,
    Gap,
    Message,
    Span,
    Subscription,
    Violation,
)

TAIL = 20
"""Messages before a violation that are kept to understand it."""


@dataclass
class _Open:
    """A subscription as this connection has it."""

    sub: Subscription
    is_live: bool = False
    replayed: int = 0


class Reading:
    """One connection of a client.

    Args:
        subscriptions: By name; an endless HTTP answer has a single one.
        who: Names the connection in violations.
        blame: Is given every violation.
        ids: Which event came as which sequence of which epoch, whoever got it.
        implicit: Whether messages name no subscription, since there is only one (HTTP).
    """

    def __init__(
        self,
        subscriptions: Mapping[str, Subscription],
        who: str,
        blame: Callable[[Violation], None],
        ids: dict[tuple[str, int], str],
        *,
        implicit: bool = False,
    ) -> None:
        self.is_lagging = False
        self.closing: Message | None = None
        self.refused: dict[str, Message] = {}
        """Subscriptions that ended with a retryable error, to be opened again."""
        self.unsubscribed: list[str] = []
        """Subscriptions that the gateway has closed, as it was asked to."""
        self.lagged = 0
        self._ids = ids
        self._subscriptions = subscriptions
        self._open: dict[str, _Open] = {}
        self._who = who
        self._blame_to = blame
        self._implicit = next(iter(subscriptions)) if implicit else None
        self._untagged = 0
        self._heartbeat = 0
        self._tail: deque[Message] = deque(maxlen=TAIL)
        self._is_welcomed = implicit

    def is_live(self) -> bool:
        """Say whether every subscription has joined the live feed, and keeps up."""
        return (
            len(self._open) == len(self._subscriptions)
            and all(each.is_live for each in self._open.values())
            and not self.is_lagging
        )

    def is_open(self, name: str) -> bool:
        """Say whether the gateway has opened a subscription."""
        return name in self._open

    def take(self, message: Message) -> None:
        """Judge the next message, and move cursors as it says."""
        self._tail.append(_shortened(message))
        if self.closing is not None:
            self._blame(PROTOCOL, "a message after closing")
        if not self._is_welcomed and message["op"] not in ("welcome", "closing"):
            self._blame(PROTOCOL, "no welcome first")
        name = message.get("sub") or self._implied_name(message)
        match message["op"]:
            case "event" if name is None:
                self._take_untagged(message)
            case "lagging":
                self._take_lagging(message)
            case "live" if name is None:
                self._take_live_again(message)
            case "heartbeat":
                self._take_heartbeat(message)
            case "welcome":
                self._take_welcome(message)
            case "closing":
                self.closing = message
            case "error":
                self._take_error(message, name)
            case "unsubscribed" if name in self._open:
                del self._open[name]
                self.unsubscribed.append(name)
            case "subscribed" if name in self._subscriptions:
                self._take_subscribed(name, message)
            case "event" | "gap" | "live" if name in self._open:
                self._take_own(name, self._open[name], message)
            case op:
                self._blame(PROTOCOL, f"{op} for {name!r}, which isn't open")

    def _implied_name(self, message: Message) -> str | None:
        """Return whose a message is that names nobody, where there is one subscription."""
        name = self._implicit
        if name is None or message["op"] in ("heartbeat", "lagging", "closing"):
            return None
        if message["op"] == "live" and "replayed" not in message:
            return None  # live again
        opened = self._open.get(name)
        if message["op"] == "event" and opened is not None and opened.is_live:
            return None
        return name

    # The connection's messages

    def _take_welcome(self, message: Message) -> None:
        if self._is_welcomed or message["protocol"] != 1:
            self._blame(PROTOCOL, "a second welcome, or of another protocol")
        self._is_welcomed = True

    def _take_untagged(self, message: Message) -> None:
        seq, subject = message["seq"], subject_of(message["event"])
        if seq <= self._untagged:
            self._blame(ORDER, f"untagged {seq} after {self._untagged}")
        self._untagged = max(self._untagged, seq)
        is_wanted = False
        for name, opened in self._open.items():
            if not opened.is_live:
                continue
            is_own = opened.sub.wanted.matches(subject)
            is_wanted |= is_own
            if is_own and seq > opened.sub.seq:
                self._receive(name, opened, message)
            elif not self.is_lagging and seq > opened.sub.seq:
                opened.sub.span.cursor = seq
        if not is_wanted:
            self._blame(FOREIGN, f"untagged {seq} is for no live subscription")

    def _take_lagging(self, message: Message) -> None:
        if self.is_lagging or message["behind"] < 0:
            self._blame(PROTOCOL, "lagging twice, or behind less than nothing")
        self.is_lagging = True
        self.lagged += 1

    def _take_live_again(self, message: Message) -> None:
        if not self.is_lagging:
            self._blame(PROTOCOL, "live again without having lagged")
        self.is_lagging = False
        self._move_live(message)

    def _take_heartbeat(self, message: Message) -> None:
        if self.is_lagging:
            self._blame(PROTOCOL, "a heartbeat while lagging")
        seq = _seq_of(message["cursor"])
        if seq < self._heartbeat:
            self._blame(CURSOR, f"heartbeat {seq} after {self._heartbeat}")
        self._heartbeat = max(seq, self._heartbeat)
        self._move_live(message)

    def _move_live(self, message: Message) -> None:
        """Let a heartbeat, or the end of lagging, move the cursor of every live subscription."""
        epoch, seq = _parse_cursor(message["cursor"])
        if seq < self._untagged:
            self._blame(CURSOR, f"{message['cursor']} is below untagged {self._untagged}")
        for name, opened in self._open.items():
            if opened.is_live:
                self._move(name, opened.sub, epoch, seq)

    def _take_error(self, message: Message, name: str | None) -> None:
        if not message["retryable"]:
            self._blame(PROTOCOL, "an error though nothing was wrong")
        elif name is not None:
            self._open.pop(name, None)
            self.refused[name] = message

    # One subscription's messages

    def _take_subscribed(self, name: str, message: Message) -> None:
        sub = self._subscriptions[name]
        if name in self._open:
            self._blame(PROTOCOL, f"{name} is open already")
        if "filters" in message and not sub.wanted.is_same_as(message["filters"]):
            self._blame(FOREIGN, f"{name} has other filters than {sub.wanted.patterns}")
        since, (epoch, seq) = sub.since, _parse_cursor(message["cursor"])
        if sub.spans:
            if message["cursor"] != since:
                self._blame(CURSOR, f"{name} asked for {since} and is at {message['cursor']}")
        else:
            sub.spans.append(Span(epoch, seq, seq))
        # Over HTTP "live" is said even of a feed from now.
        self._open[name] = _Open(sub, is_live=since is None and self._implicit is None)

    def _take_own(self, name: str, opened: _Open, message: Message) -> None:
        match message["op"]:
            case "event":
                self._take_tagged(name, opened, message)
            case "live":
                self._take_live(name, opened, message)
            case "gap":
                self._take_gap(name, opened, message)

    def _take_tagged(self, name: str, opened: _Open, message: Message) -> None:
        if opened.is_live:
            self._blame(PROTOCOL, f"tagged for {name}, which is live")
        if self.is_lagging:
            self._blame(PROTOCOL, "a replay while lagging")
        if not opened.sub.wanted.matches(subject_of(message["event"])):
            self._blame(FOREIGN, f"{name} doesn't want {message['seq']}")
        opened.replayed += 1
        self._receive(name, opened, message)

    def _receive(self, name: str, opened: _Open, message: Message) -> None:
        span, seq = opened.sub.span, message["seq"]
        if seq <= span.cursor:
            kind = DUPLICATE if seq in span.received else ORDER
            self._blame(kind, f"{name} is at {span.cursor} and gets {seq}")
        span.received.append(seq)
        span.cursor = max(span.cursor, seq)
        event_id = message["event"]["id"]
        if self._ids.setdefault((span.epoch, seq), event_id) != event_id:
            self._blame(FOREIGN, f"{seq} was another event before")

    def _take_live(self, name: str, opened: _Open, message: Message) -> None:
        epoch, seq = _parse_cursor(message["cursor"])
        if opened.is_live:
            self._blame(PROTOCOL, f"{name} is live already")
        if seq < self._untagged:
            self._blame(CURSOR, f"{name} goes live at {seq}, below untagged {self._untagged}")
        if message["replayed"] != opened.replayed:
            self._blame(PROTOCOL, f"{name} had {opened.replayed} replayed")
        self._move(name, opened.sub, epoch, seq)
        opened.is_live = True

    def _take_gap(self, name: str, opened: _Open, message: Message) -> None:
        span, reason = opened.sub.span, message["reason"]
        gap = Gap(message["from"], message.get("to"), reason, time.monotonic())
        epoch, seq = _parse_cursor(message["cursor"])
        if gap.from_seq <= span.cursor:
            self._blame(CURSOR, f"{name} is at {span.cursor}: a gap before that")
        if opened.is_live and not self.is_lagging and reason != "unreadable":
            self._blame(PROTOCOL, f"{name} is live and keeps up: a gap")
        span.gaps.append(gap)
        if reason in ("epoch", "reset"):
            if gap.to_seq is not None or (epoch == span.epoch) is (reason == "epoch"):
                self._blame(CURSOR, f"{name}: an {reason} with an end, or of the wrong log")
            opened.sub.spans.append(Span(epoch, seq, seq))
            return
        if gap.to_seq is None or not gap.from_seq <= gap.to_seq <= seq:
            self._blame(CURSOR, f"{name}: a gap of no sequences, or beyond its cursor")
        self._move(name, opened.sub, epoch, seq)

    def _move(self, name: str, sub: Subscription, epoch: str, seq: int) -> None:
        if epoch != sub.span.epoch or seq < sub.seq:
            self._blame(CURSOR, f"{name} is at {sub.cursor} and is told {epoch}:{seq}")
        else:
            sub.span.cursor = seq

    def _blame(self, kind: str, what: str) -> None:
        self._blame_to(Violation(kind, what, self._who, tuple(self._tail)))


def _parse_cursor(text: str) -> tuple[str, int]:
    epoch, _, seq = text.partition(":")
    return epoch, int(seq)


def _seq_of(cursor: str) -> int:
    return _parse_cursor(cursor)[1]


def _shortened(message: Message) -> Message:
    """Return *message* without the content of its event, of which twenty would fill a screen."""
    event = message.get("event")
    return message if event is None else message | {"event": event.get("id")}
