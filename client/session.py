"""The client's side of protocol v1: messages in, events out. No socket here.

A session outlives its connections. Every subscription has a new name on every connection, and
whenever it is asked for again, so nothing that was meant for an earlier one can reach it.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from jarvis_mesh.client.formats import Arrival, Item
from jarvis_mesh.client.listeners import (
    ConnectionNotice,
    ErrorNotice,
    GapNotice,
    LaggingNotice,
    Listeners,
    LiveNotice,
)
from jarvis_mesh.client.subscription import Subscription
from jarvis_mesh.schema.cursor import parse_cursor
from jarvis_mesh.schema.errors import BadRequestError, MeshError, error_from_wire
from jarvis_mesh.schema.wire import (
    Error,
    Gap,
    Heartbeat,
    Lagging,
    Live,
    Request,
    Subscribed,
    Unsubscribe,
    Welcome,
)

log = logging.getLogger(__name__)


class Session:
    """The subscriptions of one `Mesh`, and what every message means to them.

    Args:
        say: Sends a request, if there is a connection.
        ask_later: Calls `ask_again` for a subscription that was refused only for now, after a
            pause that grows with the number of refusals in a row.
        listeners: Are told what happens.
    """

    def __init__(
        self,
        say: Callable[[Request], None],
        ask_later: Callable[[Subscription, int], None],
        listeners: Listeners,
    ) -> None:
        self.is_connected = False
        self.is_lagging = False
        self._say = say
        self._ask_later = ask_later
        self._listeners = listeners
        self._numbers = itertools.count(1)
        self._names: dict[Subscription, str | None] = {}
        """Every subscription, and its name on this connection if it was asked for there."""
        self._asked: dict[str, Subscription] = {}
        self._accepted: dict[str, Subscription] = {}
        self._refusals: dict[Subscription, int] = {}

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Those that aren't closed, oldest first."""
        return tuple(self._names)

    def add(self, subscription: Subscription) -> None:
        """Ask for *subscription*, now and on every connection to come."""
        self._names[subscription] = None
        self.ask_again(subscription)

    def ask_again(self, subscription: Subscription) -> None:
        """Ask for *subscription* unless it is closed, asked for already, or nobody is there."""
        if self.is_connected and self._names.get(subscription, "") is None:
            name = f"s{next(self._numbers)}"
            self._names[subscription] = name
            self._asked[name] = subscription
            self._say(subscription.feed.request(name))

    def remove(self, subscription: Subscription) -> None:
        """Forget *subscription*; what still comes for it is ignored."""
        name = self._names.pop(subscription, None)
        self._refusals.pop(subscription, None)
        if name is not None:
            self._asked.pop(name, None)
            self._accepted.pop(name, None)
            self._say(Unsubscribe(sub=name))

    # What the connection says

    def opened(self, _welcome: Welcome) -> None:
        """Ask for everything on a new connection."""
        self.is_connected = True
        for subscription in self.subscriptions:
            self.ask_again(subscription)
        self._listeners.tell("connection", ConnectionNotice(is_connected=True, reason=""))

    def cut(self, reason: str, *, is_final: bool = False) -> None:
        """Note that the connection is gone; the cursors are what remains of it."""
        self.is_connected = self.is_lagging = False
        self._asked.clear()
        self._accepted.clear()
        for subscription in self._names:
            self._names[subscription] = None
            subscription.feed.cut()
        notice = ConnectionNotice(is_connected=False, reason=reason, is_final=is_final)
        self._listeners.tell("connection", notice)

    def end(self, error: MeshError) -> None:
        """End every subscription with *error*, which no connection to come will mend."""
        for subscription in self.subscriptions:
            self.remove(subscription)
            subscription.finish(error)
        if self.is_connected:
            self.cut(error.message, is_final=True)
        self._report(ErrorNotice(error))

    def failed(self, error: MeshError) -> None:
        """Tell of a try to connect, or to renew the token, that may fail again and again."""
        if not error.retryable:
            self._report(ErrorNotice(error))

    def receive(self, item: Item) -> None:
        """Do what one message says.

        Raises:
            BadRequestError: it can't be meant so; the connection isn't to be trusted further.
        """
        match item:
            case Arrival(sub=None):
                self._receive_shared(item)
            case Arrival():
                self._receive_own(item)
            case Subscribed():
                self._receive_subscribed(item)
            case Gap():
                self._receive_gap(item)
            case Live():
                self._receive_live(item)
            case Lagging():
                self.is_lagging = True
                self._listeners.tell("lagging", LaggingNotice(item.behind))
            case Heartbeat():
                self._receive_heartbeat(item)
            case Error():
                self._receive_error(item)
            case _:
                pass  # `unsubscribed`, or an answer to what a session never asks

    def _receive_shared(self, arrival: Arrival) -> None:
        subject = None
        if not isinstance(arrival.event, BadRequestError):
            subject = arrival.event.subject.split(".")
        for subscription in tuple(self._accepted.values()):
            feed = subscription.feed
            if feed.take_shared(arrival.seq, subject, is_lagging=self.is_lagging):
                self._deliver(subscription, arrival)
            else:
                subscription.moved()

    def _receive_own(self, arrival: Arrival) -> None:
        subscription = self._accepted.get(arrival.sub or "")
        if subscription is not None and subscription.feed.take_own(arrival.seq):
            self._deliver(subscription, arrival)

    def _deliver(self, subscription: Subscription, arrival: Arrival) -> None:
        """Hand over an event, in the one way or the other; a listener may change which."""
        if isinstance(arrival.event, BadRequestError):
            subscription.unreadable += 1
            subscription.moved()
            self._report(ErrorNotice(arrival.event, subscription, arrival.seq))
            return
        if subscription.is_iterated or not self._listeners.want_events:
            subscription.deliver(arrival.event, arrival.wire_bytes)
        else:
            subscription.moved()
        self._listeners.tell_event(arrival.event)

    def _receive_subscribed(self, answer: Subscribed) -> None:
        subscription = self._asked.pop(answer.sub or "", None)
        if subscription is not None:
            subscription.feed.accept(answer)
            self._accepted[answer.sub or ""] = subscription
            self._refusals.pop(subscription, None)
            subscription.accepted()

    def _receive_gap(self, gap: Gap) -> None:
        subscription = self._accepted.get(gap.sub or "")
        if subscription is None:
            return
        subscription.feed.skip(gap)
        subscription.moved()
        notice = GapNotice(subscription, gap.from_, gap.to, gap.reason, gap.cursor)
        if not self._listeners.tell("gap", notice):
            log.warning(
                "events of %s may be missing for ever, from sequence %d to %s: %s",
                *(", ".join(subscription.channels), gap.from_, gap.to or "the end", gap.reason),
            )

    def _receive_live(self, live: Live) -> None:
        cursor = parse_cursor(live.cursor)
        subscription = None
        if live.sub is None:
            self.is_lagging = False
            self._follow(live.cursor)
        elif (subscription := self._accepted.get(live.sub)) is None:
            return
        else:
            subscription.feed.join(cursor)
            subscription.moved()
        self._listeners.tell("live", LiveNotice(subscription, live.cursor, live.replayed))

    def _receive_heartbeat(self, heartbeat: Heartbeat) -> None:
        if not self.is_lagging:
            self._follow(heartbeat.cursor)

    def _follow(self, text: str) -> None:
        cursor = parse_cursor(text)
        for subscription in self._accepted.values():
            subscription.feed.follow(cursor)
            subscription.moved()

    def _receive_error(self, message: Error) -> None:
        error = error_from_wire(message.code, message.message)
        name = message.sub if message.sub is not None else str(message.id)
        subscription = self._asked.get(name) or self._accepted.get(name)
        if subscription is not None:
            self._refuse(subscription, name, error, is_final=not message.retryable)
        elif message.sub is None:  # else it is about one that was closed meanwhile
            self._report(ErrorNotice(error))

    def _refuse(
        self, subscription: Subscription, name: str, error: MeshError, *, is_final: bool
    ) -> None:
        self._names[subscription] = None
        if self._asked.pop(name, None) is None:
            del self._accepted[name]
            self._say(Unsubscribe(sub=name))  # the gateway may have it still
        if is_final:
            self.remove(subscription)
            subscription.finish(error)
        else:
            subscription.feed.cut()
            refusals = self._refusals.get(subscription, 0)
            self._refusals[subscription] = refusals + 1
            self._ask_later(subscription, refusals)
        self._report(ErrorNotice(error, subscription))

    def _report(self, notice: ErrorNotice) -> None:
        if not self._listeners.tell("error", notice):
            log.warning("%s: %s", notice.error.code, notice.error.message)
