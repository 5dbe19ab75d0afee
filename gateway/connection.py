"""One client: the answer to everything it says. No socket here."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final, assert_never

import structlog

from jarvis_mesh.gateway.access import Grants, filters_for
from jarvis_mesh.gateway.endpoint import Endpoint
from jarvis_mesh.gateway.limits import Visit
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
    TooLargeError,
    UnauthorizedError,
)
from jarvis_mesh.schema.wire import (
    PROTOCOL,
    Auth,
    Authenticated,
    Error,
    Id,
    Limits,
    Notice,
    Ping,
    Pong,
    Publish,
    Published,
    Request,
    Response,
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

MAX_WAITING: Final = 64
"""Publishes and requests of one client that wait for NATS at once; then its next message waits."""

_COST: Final = {"subscribe": 5.0, "auth": 5.0, "request": 1.0, "publish": 0.1}
"""What a message counts as against its limit. To refuse any other takes as long as to answer."""
TURN: Final = 64
"""Requests that are answered in one turn: of the cheapest, pings, a quarter of a millisecond. A
message of 1 MiB can hold 70,000 of them."""
TURN_TAKES: Final = 0.00025
"""Seconds after which a turn ends with the request that is being answered: of the dearest, refused
subscriptions of a hundred channels for a token of 64 grants, each takes 30 ms."""

_LINE: Final = re.compile(r"\S[^\n]*")
"""A line from its first character on. A message of 1 MiB can be as many empty lines."""
_PROCESS: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count(1)

log = structlog.get_logger(__name__)


class Connection(Endpoint):
    """A client that speaks the WebSocket protocol.

    Args:
        sender: Says things to the client.
        grants: What the client may see and say; `None` if it has to authenticate first.
        services: What all connections of the gateway share.
        tasks: Owns the replays and publishes of this client.
        visit: What it has taken of what is limited.
    """

    __slots__ = ("_heard", "_subscriptions", "_tasks", "_waiting", "id")

    def __init__(
        self,
        sender: Sender,
        grants: Grants | None,
        services: Services,
        tasks: TaskScope,
        visit: Visit,
    ) -> None:
        self._subscriptions = Subscriptions(sender, services, tasks, visit)
        super().__init__(sender, self._subscriptions.shared, services, grants, visit)
        self.id = f"{_PROCESS}-{next(_NUMBERS)}"
        self._tasks = tasks
        self._waiting: asyncio.Semaphore | None = None
        self._heard = 0
        sender.on_end = self._subscriptions.stop
        sender.on_failure = self.fail

    def welcome(self) -> None:
        """Say the first message, and have the client's time begin."""
        grants, deadlines = self.grants, self._services.deadlines
        if grants is None:
            deadlines.set_within(self, self._services.settings.auth_timeout)
        else:
            deadlines.set(self, grants.expires)
        self._sender.say(
            Welcome(
                protocol=PROTOCOL,
                connection=self.id,
                cursor=None if grants is None else self._position(),
                auth=_auth_state(grants),
                user=None if grants is None else grants.user,
                expires=None if grants is None or grants.user is None else grants.expires,
                heartbeat_s=self._services.settings.heartbeat,
                limits=Limits(
                    message_bytes=self._services.settings.message_bytes,
                    subscriptions=self._services.settings.max_subscriptions,
                    channels=self._services.settings.max_channels,
                ),
            )
        )

    async def hear(self, message: str | bytes) -> None:
        """Answer all that one WebSocket message holds, one after the other."""
        services = self._services
        await services.turns.mine(self.visit.who)
        began = services.clock.monotonic()
        for value in _lines(message) if isinstance(message, str) else _items(message):
            if isinstance(value, MeshError):
                self.refuse(value)
            else:
                await self._receive(value)
            await self._sender.outbox.drained()
            self._heard += 1
            if self._heard % TURN == 0 or services.clock.monotonic() - began > TURN_TAKES:
                await services.turns.mine(self.visit.who)
                began = services.clock.monotonic()

    def _check_rate(self, value: object) -> None:
        """Return if the client hasn't asked for too much lately.

        Raises:
            BusyError: it has.
        """
        op = value.get("op") if isinstance(value, dict) else None
        cost = _COST.get(op) if isinstance(op, str) else None
        if cost is None:
            return
        self.visit.ask(cost)

    async def _receive(self, value: object) -> None:
        """Answer one request, already decoded. A refusal is an answer: the connection lives."""
        try:
            self._check_rate(value)
            await self._answer(parse_request(value))
        except MeshError as error:
            self.refuse(error, id=request_id(value), sub=request_sub(value))
        except Exception:
            log.exception("a request failed", connection=self.id)
            failure = InternalError("the gateway failed at this; its log has the details")
            self.refuse(failure, id=request_id(value), sub=request_sub(value))

    def refuse(self, error: MeshError, *, id: Id | None = None, sub: str | None = None) -> None:
        """Say that something was wrong with a message."""
        self._services.metrics.refused(error)
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
        self._services.deadlines.forget(self)
        await self._subscriptions.close_all()
        self._sender.forget()

    async def _answer(self, request: Request) -> None:
        if self._sender.has_ended and not isinstance(request, Publish):
            return  # what was published before the client left is stored; the rest is nobody's
        if isinstance(request, Auth):
            await self._authenticate(request)
            return
        if isinstance(request, Ping):
            self._sender.say(Pong(id=request.id))
            return
        if self.grants is None:
            raise UnauthorizedError('authenticate first: {"op":"auth","token":"<jwt>"}')
        match request:
            case Subscribe():
                since = parse_since(request.since)
                most = self._services.settings.max_channels
                filters = filters_for(request.channels, self.grants, most)
                await self._subscriptions.open(request, filters, since)
            case Unsubscribe():
                await self._subscriptions.close(request.sub)
                self._sender.say(Unsubscribed(id=request.id, sub=request.sub))
            case Publish():
                work = partial(self._publish, request, self.grants)
                await self._spawn(request.id, work, outlives=True)
            case ServiceRequest():
                await self._spawn(request.id, partial(self._call, request, self.grants))
            case _:
                assert_never(request)

    async def _authenticate(self, request: Auth) -> None:
        """Take the client's first token, or another of the same user."""
        tokens = self._services.tokens
        if not tokens.are_required:
            raise BadRequestError("this gateway has no authentication; leave auth out")
        grants = await tokens.authenticate(request.token)
        if self.grants is not None and grants.user != self.grants.user:
            raise ForbiddenError("this connection is another user's: open one of your own")
        if self._sender.has_ended:
            return
        self.visit.identify(grants.user)
        self.grants = grants
        self._services.deadlines.set(self, grants.expires)
        answer = Authenticated(id=request.id, user=grants.user or "", expires=grants.expires)
        self._sender.say(answer)
        await self._subscriptions.narrow(grants)

    async def _spawn(
        self, id: Id | None, work: Callable[[], Awaitable[Notice]], *, outlives: bool = False
    ) -> None:
        """Do *work*, which waits for NATS, beside what else the client says."""
        if self._waiting is None:  # most clients never do
            self._waiting = asyncio.Semaphore(MAX_WAITING)
        await self._waiting.acquire()
        self._tasks.spawn(self._tell(id, work, self._waiting), outlives=outlives)

    async def _tell(
        self, id: Id | None, work: Callable[[], Awaitable[Notice]], waiting: asyncio.Semaphore
    ) -> None:
        try:
            self._sender.say(await work())
        except MeshError as error:
            self.refuse(error, id=id)
        except Exception:
            log.exception("a request failed", connection=self.id)
            self.refuse(InternalError("the gateway failed at this; its log has the details"), id=id)
        finally:
            waiting.release()

    async def _publish(self, request: Publish, grants: Grants) -> Published:
        # The largest event takes 40 ms to check and to encode.
        await self._services.turns.mine(self.visit.who)
        stored = await self._services.publishing.publish(request.event, grants)
        return Published(id=request.id, seq=stored.seq)

    async def _call(self, request: ServiceRequest, grants: Grants) -> Response:
        return Response(id=request.id, data=await self._services.calls.call(request, grants))


def _auth_state(grants: Grants | None) -> str:
    if grants is None:
        return "required"
    return "none" if grants.user is None else "ok"


def _lines(text: str) -> Iterator[object]:
    """Yield what each line holds, or the error that it is; empty lines don't count."""
    for line in _LINE.finditer(text):
        try:
            yield decode_json(line[0])
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
    except TooLargeError as error:
        yield error
