"""`GET /v1/ws` on uvicorn: a WebSocket as an asyncio protocol, without ASGI, task or queue.

A connection that is served live is a handful of objects: the transport, the state of its frames
(`websockets`' sans-I/O core) and what the client watches: 7 KB, where ASGI with its tasks took 48,
and a delivery is one write (docs/decisions/0004-fan-out-by-bursts.md).

Source: RFC 6455; docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from uvicorn.server import ServerState
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Protocol, Side, State

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.connection import Connection
from jarvis_mesh.gateway.formats import Cbor, Json
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.handshake import SILENT, Answer, answer, refused
from jarvis_mesh.gateway.key_store import UnknownKeyError
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.socket_outbox import SocketOutbox
from jarvis_mesh.gateway.sockets import UpgradeRequest
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.schema.errors import MeshError

_BUFFER: Final = memoryview(bytearray(4096))
"""Where all connections' bytes arrive, to be taken at once. It is small so that one client can't
hold up the others: in 256 KiB, which asyncio reads otherwise, fit 40,000 pings, half a second. Over
TLS asyncio fills it by slices, which of a bytearray would be copies."""
_LITTLE: Final = _BUFFER[:512]
"""What is read of a client that isn't in the middle of a large message: 85 pings, a millisecond."""
_FEW: Final = 4
"""Frames in one read of a client that sends large ones."""
_MANY: Final = 32
"""Frames in one read of a client that has to wait for its turn with what it says next."""
_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class WebSocketProtocol(asyncio.BufferedProtocol):
    """One client, from its opening handshake on.

    Args:
        gateway: Serves it.
        server_state: uvicorn's, which waits for its connections when it stops.
    """

    __slots__ = (
        "_connection",
        "_gateway",
        "_is_chatty",
        "_is_text",
        "_next_buffer",
        "_outbox",
        "_partial",
        "_reader",
        "_receiving",
        "_server_state",
        "_tasks",
        "_transport",
        "_unread",
        "_websocket",
    )

    def __init__(self, gateway: Gateway, server_state: ServerState) -> None:
        self._gateway = gateway
        self._server_state = server_state
        self._tasks = TaskScope(gateway.tasks)
        self._websocket = Protocol(
            Side.SERVER, state=State.OPEN, max_size=gateway.settings.message_bytes, logger=SILENT
        )
        self._partial: bytearray | None = None
        """The message of which fragments have come."""
        self._is_text = False
        self._next_buffer = _LITTLE
        self._is_chatty = False
        self._receiving: asyncio.Task[None] | None = None
        self._unread: deque[str | bytes] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._outbox: SocketOutbox | None = None
        self._connection: Connection | None = None

    def upgrade(self, transport: asyncio.Transport, request: UpgradeRequest) -> None:
        """Answer the opening handshake."""
        self._transport = transport
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # it has `shutdown`
        try:
            self._conclude(answer(request, self._gateway), request.early)
        except UnknownKeyError:
            transport.pause_reading()
            self._tasks.spawn(self._answer_later(request))

    async def _answer_later(self, request: UpgradeRequest) -> None:
        """Answer a handshake whose token may be signed by a key that is new."""
        gateway = self._gateway
        try:
            await gateway.keys.refresh()
            answered = answer(request, gateway)
        except MeshError as error:
            answered = refused(error, gateway)
        if not self._transport.is_closing():
            self._conclude(answered, request.early)
            self._transport.resume_reading()
        elif answered.visit is not None:
            answered.visit.end()

    def _conclude(self, answered: Answer, early: bytes) -> None:
        if answered.form is not None and answered.visit is not None:
            self._open(answered.form, answered.response, answered.grants, answered.visit)
            self._receive(early)
        else:
            self._transport.write(answered.response)
            self._transport.close()

    def _open(
        self, form: Json | Cbor, response: bytes, grants: Grants | None, visit: Visit
    ) -> None:
        gateway = self._gateway
        limit = gateway.settings.high_water_bytes
        outbox = self._outbox = SocketOutbox(self._transport, self._websocket, form, limit)
        sender = Sender(form, outbox, gateway.services.encoded_runs)
        self._connection = Connection(sender, grants, gateway.services, self._tasks, visit)
        gateway.add(self._connection)
        self._connection.welcome()
        outbox.open(response)

    # As the transport sees it

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._next_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_BUFFER[:nbytes])
        if self._is_chatty:
            self._transport.pause_reading()
            self._receiving = self._tasks.spawn(self._receive_in_turn(data), outlives=True)
        else:
            self._receive(data)

    def pause_writing(self) -> None:
        if self._outbox is not None:
            self._outbox.pause()
            self._transport.pause_reading()  # pongs too would be left in the buffer

    def resume_writing(self) -> None:
        if self._outbox is not None:
            self._outbox.resume()
            self._listen()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        if self._connection is not None and self._outbox is not None:
            self._outbox.lost()
            self._connection.hang_up()
            self._tasks.spawn(self._leave(self._connection), outlives=True)

    def shutdown(self) -> None:
        """Be cut: uvicorn stops, and the gateway has drained before."""
        self._transport.abort()

    # Reading

    async def _receive_in_turn(self, data: bytes) -> None:
        who = None if self._connection is None else self._connection.visit.who
        await self._gateway.services.turns.mine(who)
        self._receiving = None
        self._receive(data)
        self._listen()

    def _receive(self, data: bytes) -> None:
        self._websocket.receive_data(data)
        frames = self._websocket.events_received()
        is_large = len(data) >= len(_LITTLE) and len(frames) <= _FEW
        self._next_buffer = _BUFFER if is_large else _LITTLE
        self._is_chatty = len(frames) >= _MANY
        for frame in frames:
            if isinstance(frame, Frame) and frame.opcode in _DATA and not self._take(frame):
                break
        self._reply()

    def _take(self, frame: Frame) -> bool:
        """Take a part of a message, which is heard once it is whole; say if it was in order."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        message = bytes(frame.data)
        if self._partial is not None or not frame.fin:
            self._partial = self._partial or bytearray()
            self._partial += message
            if not frame.fin:
                return True
            message, self._partial = bytes(self._partial), None
        try:
            self._read_on(message.decode() if self._is_text else message)
        except UnicodeDecodeError:
            self._websocket.fail(CloseCode.INVALID_DATA, "text that isn't UTF-8")
            return False
        return True

    def _read_on(self, message: str | bytes) -> None:
        """Have *message* answered after those before it; with one waiting, read no further."""
        if self._unread is None:
            self._unread = deque()
            connection = self._connection
            assert connection is not None  # noqa: S101 - nothing is read before it is there
            work = self._read(connection, self._unread)
            self._reader = self._tasks.spawn(work, on_failure=connection.fail, outlives=True)
        else:
            self._transport.pause_reading()
        self._unread.append(message)

    def _listen(self) -> None:
        """Take more from the client, unless it has to be answered or to take something first."""
        if self._reader or self._receiving or self._outbox is None or self._outbox.is_full:
            return
        self._transport.resume_reading()

    async def _read(self, connection: Connection, unread: deque[str | bytes]) -> None:
        try:
            while unread:
                await connection.hear(unread.popleft())
        finally:
            self._reader = self._unread = None
            self._listen()

    def _reply(self) -> None:
        """Send the answers that the protocol itself has: pongs and close frames."""
        replies = self._websocket.data_to_send()
        is_ending = SEND_EOF in replies
        if is_ending and isinstance(self._websocket.parser_exc, PayloadTooBig):
            self._gateway.metrics.refuse("message_bytes")
        if is_ending and self._connection is not None:
            self._connection.hang_up()  # before the close frame: what its group has collected
        if replies and self._outbox is not None:
            self._outbox.write_control(b"".join(replies))
        if is_ending:
            self._transport.close()

    async def _leave(self, connection: Connection) -> None:
        try:
            if self._receiving is not None:
                await asyncio.wait([self._receiving])
            if self._reader is not None:
                await asyncio.wait([self._reader])
            await self._tasks.cancel()
            await connection.close()
        finally:
            self._gateway.remove(connection)
