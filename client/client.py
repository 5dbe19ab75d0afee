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
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Final

from jarvis_mesh.client.backoff import pause_before
from jarvis_mesh.client.calls import Calls, disconnected
from jarvis_mesh.client.connection import Link
from jarvis_mesh.client.credentials import Credentials, GetToken
from jarvis_mesh.client.emitter import Emitter
from jarvis_mesh.client.feed import Feed, Since, flat_channels
from jarvis_mesh.client.flow import Flow
from jarvis_mesh.client.formats import FORMATS, FormatName
from jarvis_mesh.client.handshake import socket_url
from jarvis_mesh.client.publishing import Published, Publishing
from jarvis_mesh.client.requesting import Requesting
from jarvis_mesh.client.session import Session
from jarvis_mesh.client.subscription import Subscription
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import (
    ChannelError,
    MeshError,
    UnauthorizedError,
    UnavailableError,
    UnknownSubscriptionError,
)
from jarvis_mesh.schema.event import Metadata, Priority, new_id
from jarvis_mesh.schema.json_value import JSON
from jarvis_mesh.schema.wire import NewEvent

DEFAULT_URL: Final = "http://127.0.0.1:3200"
CONNECT_WITHIN: Final = 5.0
PUBLISH_WITHIN: Final = 30.0
REQUEST_WITHIN: Final = 5.0


class Mesh(Emitter):
    """A client of one gateway. Make it with `connect`, use it with `async with`, once.

    The first connection must come about within a timeout; after that it reconnects by itself
    for ever, until `disconnect` or the end of the `async with`, and every subscription goes on
    where it was. One task group owns all that runs for it.

    Only a token that the gateway no longer takes, without a `get_token` for another, ends it
    earlier: iterators and calls raise UnauthorizedError then, and "error" listeners are told.

    A subscription whose events aren't taken pauses the others of the same `Mesh` (they come
    over one connection, in order). What is to be independent has a `Mesh` of its own.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        form: FormatName,
        timeout: float,
        clock: Clock,
    ) -> None:
        super().__init__(self._tell_queued)
        self._clock = clock
        self._timeout = timeout
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._end: MeshError | None = None
        self._flow = Flow()
        codec = FORMATS[form]
        self._session = Session(self._say, self._ask_later, self._listeners)
        self._link = Link(url, codec, self._session, self._flow, clock, credentials)
        self._calls = Calls(self._say_call, codec, self._session.failed)
        self._publishing = Publishing(self._calls)
        self._requesting = Requesting(self._calls)
        self._call_link = Link(url, codec, self._calls, Flow(), clock, credentials)
        self._calls_began = False

    @classmethod
    def connect(
        cls,
        url: str = DEFAULT_URL,
        *,
        format: FormatName = "cbor",
        timeout: float = CONNECT_WITHIN,
        token: str | None = None,
        get_token: GetToken | None = None,
        clock: Clock | None = None,
    ) -> Mesh:
        """Return a client that connects when it is entered with `async with`.

        Entering raises UnavailableError when there is no gateway, UnauthorizedError or
        ForbiddenError when it doesn't let us in.

        Args:
            url: The gateway's, with http, https, ws or wss.
            format: What events travel as: "cbor" takes fewer bytes, "json" can be read.
            timeout: Seconds for the first connection, and as many for *get_token* before it.
            token: Who we are, if that needn't outlive it: `mesh token` makes one.
            get_token: Returns a fresh one; asked for each connection, of which there are two once
                something is published or requested, and in good time before the last one
                expires. One that fails is asked again, and "error" listeners are told.
            clock: For tests.

        Raises:
            SetupError: *url* is no gateway's URL, *token* no token, or both kinds are given.
        """
        address = socket_url(url)
        credentials = Credentials(address, token=token, get_token=get_token)
        return cls(address, credentials, form=format, timeout=timeout, clock=clock or SystemClock())

    async def __aenter__(self) -> Mesh:
        if self._end is not None or self._is_open:
            raise RuntimeError("a Mesh is entered once; call Mesh.connect again")
        await self._link.open(self._timeout)
        await self._tasks.__aenter__()
        self._is_open = True
        self._start(self._keep(self._link))
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
            UnavailableError, UnauthorizedError: this `Mesh` has ended.
        """
        flat = flat_channels(channels)
        if not flat:
            raise ChannelError('name a channel; "all" is every event')
        if self._end is not None:
            raise self._end
        subscription = Subscription(Feed(flat, since), self._flow, self._session.remove)
        self._session.add(subscription)
        return subscription

    def unsubscribe(self, *channels: str | Iterable[str]) -> None:
        """Close every subscription all of whose channels are among *channels*.

        Raises:
            UnknownSubscriptionError: there is none. One that has other channels too can only be
                closed as a whole: a subscription is fixed once made.
        """
        named = set(flat_channels(channels))
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
        self._begin_calls()
        about = Metadata(session=session, entity=entity, priority=priority)
        event_id = id or new_id(self._clock.time_ms())
        event = NewEvent(type=type, payload=payload, metadata=about, id=event_id)
        return await self._publishing.publish(event, timeout)

    async def request(
        self,
        service: str,
        method: str,
        data: JSON = None,
        *,
        timeout: float = REQUEST_WITHIN,  # noqa: ASYNC109 - the gateway is told
    ) -> JSON:
        """Ask a service to do something and return its answer.

        It is sent once. What may have been carried out is never asked for again by itself.

        Args:
            service: Such as "terminal".
            method: Such as "write".
            data: What JSON can say; what it means is the service's business.
            timeout: Seconds, at most 60.

        Raises:
            UnavailableError: nobody serves that, or there was no connection: nothing was done.
            DeadlineError: no answer came, in time or before the connection broke: it may have
                been carried out.
            ForbiddenError: the token doesn't allow it.
            MeshError: the service refused it, for a reason of its own.
        """
        self._begin_calls()
        return await self._requesting.request(service, method, data, timeout)

    def disconnect(self) -> None:
        """End the connection for good; iterators end. Idempotent.

        The socket is closed in the background; leaving the `async with` waits for it.
        """
        for subscription in self._session.subscriptions:
            subscription.close()
        if self._session.is_connected:
            self._session.cut("disconnected by this program", is_final=True)
        self._stop(disconnected())

    def _stop(self, end: MeshError) -> None:
        """Let nothing more begin, and what waits for an answer hear of *end*."""
        self._end = self._end or end
        self._calls.close(end)
        for task in self._running:
            task.cancel()

    def _tell_queued(self) -> None:
        for subscription in self._session.subscriptions:
            while not subscription.is_iterated and (event := subscription.take_nowait()):
                self._listeners.tell_event(event)

    def _say(self, request: Any) -> None:
        self._link.say(request)

    def _say_call(self, message: str | bytes) -> None:
        self._call_link.say_encoded(message)

    def _begin_calls(self) -> None:
        """Have the connection for what is asked, which who only watches doesn't need."""
        if self._end is not None:
            raise self._end
        if not self._is_open:
            raise UnavailableError("this Mesh isn't connected: use it within `async with`")
        if not self._calls_began:
            self._calls_began = True
            self._start(self._keep(self._call_link))

    async def _keep(self, link: Link) -> None:
        """Keep *link* up; where it can't be for want of a token, end everything."""
        try:
            await link.run()
        except UnauthorizedError as error:
            self._session.end(error)
            self._stop(error)

    def _ask_later(self, subscription: Subscription, refusals: int) -> None:
        self._start(self._ask_after(subscription, pause_before(refusals)))

    async def _ask_after(self, subscription: Subscription, pause: float) -> None:
        await self._clock.sleep(pause)
        self._session.ask_again(subscription)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
