"""`Mesh`: watching and publishing events through a gateway.

    async with Mesh.connect("http://127.0.0.1:3200") as mesh:
        await mesh.publish("agent:status", {"agentId": "a", "status": "idle"})
        async for event in mesh.subscribe("event:agent:**", since=timedelta(minutes=10)):
            print(event.type, event.payload)

or with listeners:

        mesh.on("event:agent:status", show)
        mesh.on("gap", report)
        mesh.subscribe("event:agent:**")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Literal, overload

from jarvis_mesh.client.backoff import pause_before
from jarvis_mesh.client.connection import Link
from jarvis_mesh.client.feed import Feed, Since
from jarvis_mesh.client.flow import Flow
from jarvis_mesh.client.formats import FORMATS, FormatName
from jarvis_mesh.client.handshake import socket_url
from jarvis_mesh.client.listeners import (
    ConnectionNotice,
    ErrorNotice,
    GapNotice,
    LaggingNotice,
    Listener,
    Listeners,
    LiveNotice,
    Undo,
)
from jarvis_mesh.client.publishing import Published, Publishing
from jarvis_mesh.client.session import Session
from jarvis_mesh.client.subscription import Subscription
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import ChannelError, UnavailableError, UnknownSubscriptionError
from jarvis_mesh.schema.event import Event, Metadata, Priority, new_id
from jarvis_mesh.schema.json_value import JSON
from jarvis_mesh.schema.wire import NewEvent

DEFAULT_URL: Final = "http://127.0.0.1:3200"
CONNECT_WITHIN: Final = 5.0
PUBLISH_WITHIN: Final = 30.0


class Mesh:
    """A client of one gateway. Make it with `connect`, use it with `async with`, once.

    The first connection must come about within a timeout; after that it reconnects by itself
    for ever, until `disconnect` or the end of the `async with`, and every subscription goes on
    where it was. One task group owns all that runs for it.

    A subscription whose events aren't taken pauses the others of the same `Mesh` (they come
    over one connection, in order). What is to be independent has a `Mesh` of its own.
    """

    def __init__(self, url: str, *, form: FormatName, timeout: float, clock: Clock | None) -> None:
        self._clock = clock or SystemClock()
        self._timeout = timeout
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._is_over = False
        self._listeners = Listeners()
        self._flow = Flow()
        address, codec = socket_url(url), FORMATS[form]
        self._session = Session(self._say, self._ask_later, self._listeners)
        self._link = Link(address, codec, self._session, self._flow, self._clock)
        self._publishing = Publishing(self._say_event, codec)
        self._publish_link = Link(address, codec, self._publishing, Flow(), self._clock)
        self._publishes = False

    @classmethod
    def connect(
        cls,
        url: str = DEFAULT_URL,
        *,
        format: FormatName = "cbor",
        timeout: float = CONNECT_WITHIN,
        clock: Clock | None = None,
    ) -> Mesh:
        """Return a client that connects when it is entered with `async with`.

        Entering raises UnavailableError when there is no gateway, UnauthorizedError or
        ForbiddenError when it doesn't let us in.

        Args:
            url: The gateway's, with http, https, ws or wss.
            format: What events travel as: "cbor" takes fewer bytes, "json" can be read.
            timeout: Seconds for the first connection.
            clock: For tests.

        Raises:
            SetupError: *url* is no gateway's URL.
        """
        return cls(url, form=format, timeout=timeout, clock=clock)

    async def __aenter__(self) -> Mesh:
        if self._is_over or self._is_open:
            raise RuntimeError("a Mesh is entered once; call Mesh.connect again")
        await self._link.open(self._timeout)
        await self._tasks.__aenter__()
        self._is_open = True
        self._start(self._link.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()
        try:
            # The group wraps what the user's own code raised, unless it isn't told of it.
            if kind is not None and not issubclass(kind, asyncio.CancelledError):
                kind = error = traceback = None
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            await self._link.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._session.is_connected

    def subscribe(self, *channels: str | Iterable[str], since: Since = None) -> Subscription:
        """Return a subscription to whatever matches any of *channels*.

        It begins as soon as there is a connection; `Subscription.ready` waits for it.

        Args:
            channels: One or more, each as text or in lists: "event:agent:**", "session:s-42".
            since: Where it starts; `None` is now. See `Since`.

        Raises:
            ChannelError: no channel is given.
            CursorError: *since* is none of its forms.
            UnavailableError: this `Mesh` is disconnected.
        """
        flat = _flatten(channels)
        if not flat:
            raise ChannelError('name a channel; "all" is every event')
        if self._is_over:
            raise UnavailableError("this Mesh is disconnected; make a new one")
        subscription = Subscription(Feed(flat, since), self._flow, self._session.remove)
        self._session.add(subscription)
        return subscription

    def unsubscribe(self, *channels: str | Iterable[str]) -> None:
        """Close every subscription all of whose channels are among *channels*.

        Raises:
            UnknownSubscriptionError: there is none. One that has other channels too can only be
                closed as a whole: a subscription is fixed once made.
        """
        named = set(_flatten(channels))
        found = [each for each in self._session.subscriptions if named.issuperset(each.channels)]
        if not found:
            raise UnknownSubscriptionError(f"no subscription is for {sorted(named)} alone")
        for subscription in found:
            subscription.close()

    async def publish(
        self,
        type: str,
        payload: JSON,
        *,
        entity: str | None = None,
        session: str | None = None,
        priority: Priority | None = None,
        id: str | None = None,
        timeout: float = PUBLISH_WITHIN,  # noqa: ASYNC109 - bounds the retries too
    ) -> Published:
        """Publish an event and return once the log has it.

        The gateway sets source, user and timestamp. When the connection breaks before the
        answer, the event is sent again with the same id, which can't store it twice. What the
        gateway refuses for now ("unavailable", "rate_limited") is raised, not retried.

        Args:
            type: `family:name` or `family:name:name`.
            payload: What JSON can say.
            entity: What it is about.
            session: The session of work that it is part of.
            id: UUIDv7; give that of an earlier try to publish the same event again.
            timeout: Seconds, at most 100.

        Raises:
            EventError, TooLargeError: it can't be published as it is.
            UnavailableError: there was no connection; it was never sent.
            OutcomeUnknownError: no answer came in time; try again with the same id.
            MeshError: the gateway refused it.
        """
        if not self._is_open or self._is_over:
            raise UnavailableError("this Mesh isn't connected: use it within `async with`")
        if not self._publishes:
            self._publishes = True
            self._start(self._publish_link.run())
        about = Metadata(session=session, entity=entity, priority=priority)
        event_id = id or new_id(self._clock.time_ms())
        event = NewEvent(type=type, payload=payload, metadata=about, id=event_id)
        return await self._publishing.publish(event, timeout)

    @overload
    def on(
        self, name: Literal["connection"], listener: Callable[[ConnectionNotice], object]
    ) -> Undo: ...
    @overload
    def on(self, name: Literal["gap"], listener: Callable[[GapNotice], object]) -> Undo: ...
    @overload
    def on(self, name: Literal["lagging"], listener: Callable[[LaggingNotice], object]) -> Undo: ...
    @overload
    def on(self, name: Literal["live"], listener: Callable[[LiveNotice], object]) -> Undo: ...
    @overload
    def on(self, name: Literal["error"], listener: Callable[[ErrorNotice], object]) -> Undo: ...
    @overload
    def on(self, name: str, listener: Callable[[Event], object]) -> Undo: ...

    def on(self, name: str, listener: Listener) -> Undo:
        """Call *listener* with every notice called *name*; return what ends that.

        Args:
            name: "event", "event:<type>" (one exact type), "connection", "gap", "lagging",
                "live" or "error". An event is told once for every subscription it belongs to.
                Events that wait because nobody listened or iterated are told at once.
            listener: A plain function that doesn't block; what it raises is logged.

        Raises:
            ValueError: no such name, or *listener* is a coroutine function.
            EventError: `event:` isn't followed by an event type.
        """
        undo = self._listeners.add(name, listener)
        if self._listeners.want_events:
            self._tell_queued()
        return undo

    def off(self, name: str, listener: Listener) -> None:
        """Call *listener* for *name* no more. Idempotent."""
        self._listeners.remove(name, listener)

    def disconnect(self) -> None:
        """End the connection for good; iterators end. Idempotent.

        The socket is closed in the background; leaving the `async with` waits for it.
        """
        self._is_over = True
        for subscription in self._session.subscriptions:
            subscription.close()
        self._publishing.close()
        if self._session.is_connected:
            self._session.cut("disconnected by this program")
        for task in self._running:
            task.cancel()

    def _tell_queued(self) -> None:
        for subscription in self._session.subscriptions:
            while not subscription.is_iterated and (event := subscription.take_nowait()):
                self._listeners.tell_event(event)

    def _say(self, request: Any) -> None:
        self._link.say(request)

    def _say_event(self, message: str | bytes) -> None:
        self._publish_link.say_encoded(message)

    def _ask_later(self, subscription: Subscription, refusals: int) -> None:
        self._start(self._ask_after(subscription, pause_before(refusals)))

    async def _ask_after(self, subscription: Subscription, pause: float) -> None:
        await self._clock.sleep(pause)
        self._session.ask_again(subscription)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _flatten(channels: Iterable[str | Iterable[str]]) -> list[str]:
    flat: list[str] = []
    for each in channels:
        flat.extend([each] if isinstance(each, str) else each)
    return list(dict.fromkeys(flat))
