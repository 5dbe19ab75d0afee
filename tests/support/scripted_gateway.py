"""A gateway that does what its test says, to force what a real one rarely does.

It speaks both subprotocols, over a real socket: cut frames, gaps, errors, silence, closing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import cbor2
import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from jarvis_mesh.schema.codec import encode_body
from jarvis_mesh.schema.event import Event, Metadata, new_id
from jarvis_mesh.schema.wire import CBOR_SUBPROTOCOL, JSON_SUBPROTOCOL

EPOCH = "1700000000000000000"
WITHIN = 10.0


def make_event(entity: str = "a", type: str = "agent:updated", **payload: Any) -> Event:
    """Return an event as a publisher would make it."""
    return Event(
        id=new_id(1_800_000_000_000),
        type=type,
        source="agent-service",
        timestamp=1_800_000_000_000,
        payload={"agentId": entity, **payload},
        metadata=Metadata(entity=entity),
    )


def cursor(seq: int, epoch: str = EPOCH) -> str:
    return f"{epoch}:{seq}"


class Visitor:
    """One client's connection, seen from the gateway."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        assert socket.request is not None, "the handshake is over"
        self.path = socket.request.path
        self.authorization = socket.request.headers.get("Authorization")
        self.is_text = socket.subprotocol == JSON_SUBPROTOCOL

    async def say(self, op: str, **fields: Any) -> None:
        """Send one message."""
        await self.socket.send(self.encode({"op": op, **fields}))

    async def event(self, seq: int, event: Event, sub: str | None = None) -> None:
        """Send one event."""
        await self.socket.send(self.encode_event(seq, event, sub))

    async def events(self, *pairs: tuple[int, Event]) -> None:
        """Send several live events in one message."""
        joint = "\n" if self.is_text else b""
        await self.socket.send(joint.join(self.encode_event(*pair) for pair in pairs))

    def encode(self, message: dict[str, Any]) -> Any:
        if self.is_text:
            return msgspec.json.encode(message).decode()
        return cbor2.dumps(message)

    def encode_event(self, seq: int, event: Event, sub: str | None = None) -> Any:
        if self.is_text:
            about = {} if sub is None else {"sub": sub}
            return self.encode({"op": "event", **about, "seq": seq, "event": event.to_map()})
        return cbor2.dumps([seq, encode_body(event), *([] if sub is None else [sub])])

    async def expect(self, op: str) -> dict[str, Any]:
        """Return the client's next message, which must have this op."""
        async with asyncio.timeout(WITHIN):
            data = await self.socket.recv()
        message: dict[str, Any] = (
            msgspec.json.decode(data) if self.is_text else cbor2.loads(_bytes(data))
        )
        assert message["op"] == op, message
        return message

    async def accept(self, seq: int, *filters: str) -> dict[str, Any]:
        """Accept the subscription that is asked for next, at *seq*; return the request."""
        request = await self.expect("subscribe")
        await self.say(
            "subscribed",
            id=request["id"],
            sub=request["sub"],
            filters=list(filters) or ["*.*.*.*.*.*.*"],
            cursor=cursor(seq),
        )
        return request

    async def reject(self, reason: str = "the token has expired") -> None:
        """End the connection for want of a token."""
        await self.say("error", code="unauthorized", message=reason, retryable=False)
        await self.close(1008, "unauthorized")

    def cut(self) -> None:
        """Break the connection without a word."""
        self.socket.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)


class ScriptedGateway:
    """Lets clients in, welcomes them, and does nothing else by itself."""

    def __init__(self) -> None:
        self.heartbeat = 10.0
        self.message_bytes = 1024 * 1024
        self.auth: dict[str, Any] = {"auth": "none"}
        """What a welcome says of it: auth, user, expires."""
        self.refusal: str | None = None
        """What a handshake is told with 401, if it isn't let in."""
        self.refused = 0
        self.visitors = 0
        self._arrived: asyncio.Queue[Visitor] = asyncio.Queue()
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen: on a free port the first time, on the same one afterwards."""
        self._server = await serve(
            self._receive,
            "127.0.0.1",
            self._port,
            subprotocols=[Subprotocol(CBOR_SUBPROTOCOL), Subprotocol(JSON_SUBPROTOCOL)],
            ping_interval=None,
            compression=None,
            close_timeout=1,
            max_size=None,
            process_request=self._judge,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Go away. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            for socket in tuple(server.connections):
                socket.transport.abort()
            server.close()
            await server.wait_closed()

    async def visitor(self) -> Visitor:
        """Return the next client that came and was welcomed."""
        async with asyncio.timeout(WITHIN):
            return await self._arrived.get()

    def _judge(self, socket: ServerConnection, _request: Request) -> Response | None:
        if self.refusal is None:
            return None
        self.refused += 1
        return socket.respond(HTTPStatus.UNAUTHORIZED, f"{self.refusal}\n")

    async def _receive(self, socket: ServerConnection) -> None:
        visitor = Visitor(socket)
        self.visitors += 1
        await visitor.say(
            "welcome",
            protocol=1,
            connection=f"c{self.visitors}",
            cursor=cursor(0),
            **self.auth,
            heartbeat_s=self.heartbeat,
            limits={"message_bytes": self.message_bytes, "subscriptions": 100, "channels": 100},
        )
        self._arrived.put_nowait(visitor)
        await socket.wait_closed()


@asynccontextmanager
async def scripted_gateway() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def _bytes(data: str | bytes) -> bytes:
    assert isinstance(data, bytes), "CBOR comes in binary messages"
    return data
