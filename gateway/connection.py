"""One client: its subscriptions, and the answer to everything it says. No socket here."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import Final, assert_never

import structlog

from jarvis_mesh.gateway.access import LIMITS, Grants, filters_for
from jarvis_mesh.gateway.catchup import Missing, belongs, unreadable
from jarvis_mesh.gateway.conflation import Conflation
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.stored_event import StoredEvent
from jarvis_mesh.schema.cursor import Cursor, parse_since
from jarvis_mesh.schema.errors import (
    BadRequestError,
    DuplicateSubscriptionError,
    ForbiddenError,
    InternalError,
    LimitError,
    MeshError,
    UnknownSubscriptionError,
)
from jarvis_mesh.schema.wire import (
    PROTOCOL,
    Auth,
    Closing,
    Error,
    Gap,
    Heartbeat,
    Id,
    Live,
    Notice,
    Ping,
    Pong,
    Publish,
    Published,
    Request,
    ServiceRequest,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    parse_request,
    request_id,
    request_sub,
)

MAX_PUBLISHING: Final = 64
"""Events of one client that wait for the log at once; then its next message waits."""
TRY_AGAIN_LATER: Final = 1013
INTERNAL_ERROR: Final = 1011
"""WebSocket close codes (IANA registry)."""

log = structlog.get_logger(__name__)


class Connection:
    """What a gateway knows of one client.

    Args:
        form: JSON or CBOR.
        outbox: Takes what is to be sent.
        grants: What the client may see and say.
        services: What all connections of the gateway share.
        tasks: Owns the replays and publishes of this client.
    """

    def __init__(
        self,
        form: Format,
        outbox: Outbox,
        grants: Grants,
        services: Services,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.ended: asyncio.Event = asyncio.Event()
        """Set when the gateway ends the connection."""
        self.close_code = 1000
        self.close_reason = ""
        self.last_written = services.clock.monotonic()
        self._form = form
        self._outbox = outbox
        self._grants = grants
        self._services = services
        self._tasks = tasks
        self._feeds: dict[str, Feed] = {}
        self._running: dict[Feed, asyncio.Task[None]] = {}
        self._conflations: dict[Feed, Conflation] = {}
        self._live_interests: frozenset[Interest] = frozenset()
        self._publishing = asyncio.Semaphore(MAX_PUBLISHING)

    # What the client says

    def welcome(self) -> None:
        """Say the first message."""
        live = self._services.live
        self._write(
            Welcome(
                protocol=PROTOCOL,
                connection=self.id,
                cursor=str(Cursor(live.epoch, live.position)) if live.epoch else None,
                auth="none",
                user=self._grants.user,
                heartbeat_s=self._services.heartbeat,
                limits=LIMITS,
            )
        )

    async def receive(self, value: object) -> None:
        """Answer one message, already decoded. A refusal is an answer: the connection lives."""
        try:
            request = parse_request(value)
            if isinstance(request, Publish):
                await self._publishing.acquire()
                self._tasks.create_task(self._publish(request))
            else:
                await self._answer(request)
        except MeshError as error:
            self.refuse(error, id=request_id(value), sub=request_sub(value))
        except Exception:
            log.exception("a request failed", connection=self.id)
            failure = InternalError("the gateway failed at this; its log has the details")
            self.refuse(failure, id=request_id(value), sub=request_sub(value))
        await self._outbox.drained()

    def refuse(self, error: MeshError, *, id: Id | None = None, sub: str | None = None) -> None:
        """Say that something was wrong with a message."""
        self._write(Error.of(error, id=id, sub=sub))

    async def close(self) -> None:
        """Let go of everything this client had. Idempotent."""
        self._leave_fanout()
        for task in self._running.values():
            task.cancel()
        for feed in tuple(self._feeds.values()):
            await self._close_feed(feed)

    def end(self, reason: str, code: int) -> None:
        """Tell the client to come back elsewhere or later, and end the connection.

        No event is sent from this instant on; the socket is closed once this was written.
        """
        if not self.ended.is_set():
            self._write(Closing(reason=reason, retry_ms=self._services.retry_ms()))
            self._end(reason, code)

    def heartbeat(self) -> None:
        """Say how far the position has moved."""
        live = self._services.live
        if live.epoch:
            self._write(Heartbeat(cursor=str(Cursor(live.epoch, live.position))))

    async def _answer(self, request: Request) -> None:
        match request:
            case Subscribe():
                await self._subscribe(request)
            case Unsubscribe():
                await self._unsubscribe(request)
            case Ping():
                self._write(Pong(id=request.id))
            case Auth():
                raise BadRequestError("this gateway has no authentication; leave auth out")
            case ServiceRequest():
                raise ForbiddenError("without authentication no service can be called")
            case Publish():
                raise AssertionError("published in a task of its own")
            case _:
                assert_never(request)

    async def _subscribe(self, request: Subscribe) -> None:
        if request.sub in self._feeds:
            raise DuplicateSubscriptionError(f"there is a subscription {request.sub!r} already")
        if len(self._feeds) >= LIMITS.subscriptions:
            raise LimitError(f"a connection has at most {LIMITS.subscriptions} subscriptions")
        since = parse_since(request.since)
        filters = filters_for(request.channels, self._grants)
        services = self._services
        feed = Feed(request.sub, filters, self, services.live, services.reader, services.clock)
        try:
            cursor = await feed.open(since)
        except BaseException:
            await feed.close()
            raise
        self._feeds[request.sub] = feed
        if request.conflate_ms is not None:
            self._conflations[feed] = Conflation(
                request.conflate_ms / 1000, services.clock, lambda event: self._tell(feed, event)
            )
        patterns = [each.pattern for each in filters]
        self._write(
            Subscribed(id=request.id, sub=request.sub, filters=patterns, cursor=str(cursor))
        )
        if feed.is_caught_up:
            feed.go_live()
        self._running[feed] = self._tasks.create_task(self._run(feed))

    async def _run(self, feed: Feed) -> None:
        try:
            if not feed.is_caught_up:
                await feed.run()
            if (conflation := self._conflations.get(feed)) is not None:
                await conflation.run()
        except Exception:
            log.exception("a subscription failed", connection=self.id)
            self.end("internal", INTERNAL_ERROR)

    async def _unsubscribe(self, request: Unsubscribe) -> None:
        feed = self._feeds.get(request.sub)
        if feed is None:
            raise UnknownSubscriptionError(f"there is no subscription {request.sub!r}")
        await self._close_feed(feed)
        self._write(Unsubscribed(id=request.id, sub=request.sub))

    async def _close_feed(self, feed: Feed) -> None:
        del self._feeds[feed.sub]
        if (task := self._running.pop(feed, None)) is not None:
            task.cancel()
        if (conflation := self._conflations.pop(feed, None)) is not None:
            conflation.stop(feed.interests)
        feed.is_live = False
        self._follow_live_feeds()
        await feed.close()

    async def _publish(self, request: Publish) -> None:
        try:
            seq = await self._services.publishing.publish(request.event, self._grants)
            self._write(Published(id=request.id, seq=seq))
        except MeshError as error:
            self.refuse(error, id=request.id)
        finally:
            self._publishing.release()

    # What the feeds say

    def feed_event(self, feed: Feed, event: StoredEvent) -> None:
        """Send an event for *feed* alone."""
        self._tell(feed, event)

    def feed_missing(self, feed: Feed, missing: Missing) -> None:
        """Say what *feed* can't have."""
        self._write(
            Gap(
                sub=feed.sub,
                from_=missing.from_seq,
                to=missing.to_seq,
                reason=missing.reason,
                cursor=str(missing.cursor),
            )
        )

    def feed_is_live(self, feed: Feed, cursor: Cursor, replayed: int | None) -> None:
        """Let *feed* have live events after *cursor*, from this instant on."""
        if replayed is not None:
            self._write(Live(sub=feed.sub, cursor=str(cursor), replayed=replayed))
        if (conflation := self._conflations.get(feed)) is not None:
            conflation.start(feed.interests, cursor.seq)
        else:
            self._follow_live_feeds()

    @property
    def is_drained(self) -> bool:
        """Whether the client has taken most of what was sent."""
        return self._outbox.is_drained

    async def drained(self) -> None:
        """Return once it has."""
        await self._outbox.drained()

    # What the groups say

    def write_live(self, message: bytes) -> None:
        """Queue an encoded live event."""
        self._send(message)

    def skip_unreadable(self, event: StoredEvent) -> None:
        """Say to every live subscription that an event which matches can't be delivered."""
        for feed in tuple(self._live_feeds()):
            if belongs(event, feed.filters):
                self._tell(feed, event)

    def _live_feeds(self) -> Iterable[Feed]:
        return (
            feed for feed in self._feeds.values() if feed.is_live and feed not in self._conflations
        )

    def _follow_live_feeds(self) -> None:
        """Be a member of the group for exactly what the live subscriptions are for."""
        interests = frozenset(each for feed in self._live_feeds() for each in feed.interests)
        if interests == self._live_interests:
            return
        self._leave_fanout()
        if interests:
            position = self._services.live.position
            self._services.fanout.join(self, interests, self._form, position)
        self._live_interests = interests

    def _leave_fanout(self) -> None:
        self._services.fanout.leave(self, self._live_interests, self._form)
        self._live_interests = frozenset()

    # What goes out

    def _tell(self, feed: Feed, event: StoredEvent) -> None:
        """Send an event for *feed* alone, or say that it can't be read."""
        if event.event is None:
            self.feed_missing(feed, unreadable(event, self._services.live.epoch))
        else:
            self._send(self._form.event_for(event, feed.sub))

    def _write(self, notice: Notice) -> None:
        self._send(self._form.encode(notice))

    def _send(self, message: bytes) -> None:
        if self.ended.is_set():
            return
        try:
            self._outbox.write(message)
            self.last_written = self._services.clock.monotonic()
        except LimitError as error:
            log.warning("a client is too slow", connection=self.id, error=error.message)
            self._end("too slow", TRY_AGAIN_LATER, discard=True)

    def _end(self, reason: str, code: int, *, discard: bool = False) -> None:
        self.close_code, self.close_reason = code, reason
        self.ended.set()
        self._outbox.finish(discard=discard)
        self._leave_fanout()
        for task in self._running.values():
            task.cancel()
