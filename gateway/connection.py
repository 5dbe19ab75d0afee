"""One client: the answer to everything it says. No socket here."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from typing import Final, assert_never

import structlog

from jarvis_mesh.gateway.access import LIMITS, Grants, filters_for
from jarvis_mesh.gateway.endpoint import Endpoint
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.subscriptions import Subscriptions
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.schema.codec import iter_items
from jarvis_mesh.schema.cursor import parse_since
from jarvis_mesh.schema.errors import (
    BadRequestError,
    EventError,
    ForbiddenError,
    InternalError,
    MeshError,
)
from jarvis_mesh.schema.wire import (
    PROTOCOL,
    Auth,
    Error,
    Id,
    Ping,
    Pong,
    Publish,
    Published,
    Request,
    ServiceRequest,
    Subscribe,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    decode_json,
    parse_request,
    request_id,
    request_sub,
)

MAX_PUBLISHING: Final = 64
"""Events of one client that wait for the log at once; then its next message waits."""

TURN: Final = 64
"""Requests that are answered in one turn of the loop: of the cheapest, pings, a quarter of a
millisecond. A message of 1 MiB can hold 70,000 of them."""

_PROCESS: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count(1)

log = structlog.get_logger(__name__)


class Connection(Endpoint):
    """A client that speaks the WebSocket protocol.

    Args:
        sender: Says things to the client.
        grants: What the client may see and say.
        services: What all connections of the gateway share.
        tasks: Owns the replays and publishes of this client.
    """

    __slots__ = ("_grants", "_heard", "_publishing", "_subscriptions", "_tasks", "id")

    def __init__(
        self, sender: Sender, grants: Grants, services: Services, tasks: TaskScope
    ) -> None:
        self._subscriptions = Subscriptions(sender, services, tasks)
        super().__init__(sender, self._subscriptions.shared, services)
        self.id = f"{_PROCESS}-{next(_NUMBERS)}"
        self._grants = grants
        self._tasks = tasks
        self._publishing: asyncio.Semaphore | None = None
        self._heard = 0
        sender.on_end = self._subscriptions.stop
        sender.on_failure = self.fail

    def welcome(self) -> None:
        """Say the first message."""
        self._sender.say(
            Welcome(
                protocol=PROTOCOL,
                connection=self.id,
                cursor=self._position(),
                auth="none",
                user=self._grants.user,
                heartbeat_s=self._services.heartbeat,
                limits=LIMITS,
            )
        )

    async def hear(self, message: str | bytes) -> None:
        """Answer all that one WebSocket message holds, one after the other."""
        for value in _lines(message) if isinstance(message, str) else _items(message):
            if isinstance(value, MeshError):
                self.refuse(value)
            else:
                await self._receive(value)
            await self._sender.outbox.drained()
            self._heard += 1
            if self._heard % TURN == 0:
                await self._services.clock.sleep(0)  # others have their turn

    async def _receive(self, value: object) -> None:
        """Answer one request, already decoded. A refusal is an answer: the connection lives."""
        try:
            await self._answer(parse_request(value))
        except MeshError as error:
            self.refuse(error, id=request_id(value), sub=request_sub(value))
        except Exception:
            log.exception("a request failed", connection=self.id)
            failure = InternalError("the gateway failed at this; its log has the details")
            self.refuse(failure, id=request_id(value), sub=request_sub(value))

    def refuse(self, error: MeshError, *, id: Id | None = None, sub: str | None = None) -> None:
        """Say that something was wrong with a message."""
        self._sender.say(Error.of(error, id=id, sub=sub))

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    def fall_behind(self) -> None:
        self._subscriptions.fall_behind()

    def hang_up(self) -> None:
        """Say nothing more: the client has gone. Idempotent."""
        self._sender.end("", 1000, discard=True)

    async def close(self) -> None:
        """Let go of everything this client had. Idempotent."""
        await self._subscriptions.close_all()
        self._sender.forget()

    async def _answer(self, request: Request) -> None:
        if self._sender.has_ended and not isinstance(request, Publish):
            return  # what was published before the client left is stored; the rest is nobody's
        match request:
            case Subscribe():
                since = parse_since(request.since)
                filters = filters_for(request.channels, self._grants)
                await self._subscriptions.open(request, filters, since)
            case Unsubscribe():
                await self._subscriptions.close(request.sub)
                self._sender.say(Unsubscribed(id=request.id, sub=request.sub))
            case Publish():
                if self._publishing is None:  # most clients never do
                    self._publishing = asyncio.Semaphore(MAX_PUBLISHING)
                await self._publishing.acquire()
                self._tasks.spawn(self._publish(request, self._publishing), outlives=True)
            case Ping():
                self._sender.say(Pong(id=request.id))
            case Auth():
                raise BadRequestError("this gateway has no authentication; leave auth out")
            case ServiceRequest():
                raise ForbiddenError("without authentication no service can be called")
            case _:
                assert_never(request)

    async def _publish(self, request: Publish, publishing: asyncio.Semaphore) -> None:
        try:
            stored = await self._services.publishing.publish(request.event, self._grants)
            self._sender.say(Published(id=request.id, seq=stored.seq))
        except MeshError as error:
            self.refuse(error, id=request.id)
        except Exception:
            log.exception("a publish failed", connection=self.id)
            self.refuse(InternalError("the gateway failed at this event"), id=request.id)
        finally:
            publishing.release()


def _lines(text: str) -> Iterator[object]:
    """Yield what each line holds, or the error that it is; empty lines don't count."""
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            yield decode_json(line)
        except BadRequestError as error:
            yield error


def _items(data: bytes) -> Iterator[object]:
    """Yield the items of a CBOR sequence, up to the error that a malformed one is.

    Where the next item would start can't be known then.
    """
    try:
        yield from iter_items(data)
    except EventError as error:
        yield BadRequestError(error.message)
