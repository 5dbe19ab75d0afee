"""`GET /v1/ws` over ASGI, for servers other than ours (websocket_protocol.py).

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.connection import Connection
from jarvis_mesh.gateway.formats import Cbor, Json, choose_format
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.handshake import refusal
from jarvis_mesh.gateway.http_admission import knock
from jarvis_mesh.gateway.http_errors import refusal as refused
from jarvis_mesh.gateway.lifetime import live_out
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.outbox import QueuedOutbox
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.sockets import transport_of
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.schema.errors import MeshError


async def serve_websocket(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one client until it or the gateway ends the connection."""
    offered = websocket.scope["subprotocols"]
    form = choose_format(offered)
    if gateway.is_draining or form is None:
        status, text = refusal(gateway)
        await websocket.send_denial_response(PlainTextResponse(f"{text}\n", status))
        return
    try:
        address = knock(websocket, gateway)
        authorization = websocket.headers.getlist("authorization")
        grants = await gateway.services.tokens.authenticate_handshake(authorization)
        visit = gateway.services.limits.visit(address, None if grants is None else grants.user)
    except MeshError as error:
        await websocket.send_denial_response(refused(error, gateway.metrics))
        return
    try:
        await websocket.accept(form.subprotocol if offered else None)
        await _serve(websocket, gateway, form, grants, visit)
    finally:
        visit.end()


async def _serve(
    websocket: WebSocket,
    gateway: Gateway,
    form: Json | Cbor,
    grants: Grants | None,
    visit: Visit,
) -> None:
    transport = transport_of(websocket.scope)
    outbox = QueuedOutbox(gateway.settings.high_water_bytes, form.separator, transport)
    tasks = TaskScope(gateway.tasks)
    sender = Sender(form, outbox, gateway.services.encoded_runs)
    connection = Connection(sender, grants, gateway.services, tasks, visit)
    with gateway.serving(connection):
        connection.welcome()
        try:
            reading = _read(websocket, connection)
            await live_out(outbox, transport, reading, writing=_write(websocket, outbox, form))
        finally:
            await tasks.cancel()
            await connection.close()


async def _read(websocket: WebSocket, connection: Connection) -> None:
    """Take what the client says, one message after the other."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        text = message.get("text")
        await connection.hear(message["bytes"] if text is None else text)


async def _write(websocket: WebSocket, outbox: QueuedOutbox, form: Json | Cbor) -> None:
    """Write what is in the outbox until it is finished, then the close frame."""
    try:
        while message := await outbox.take():
            if form.is_text:
                await websocket.send_text(message.decode())
            else:
                await websocket.send_bytes(message)
            outbox.sent()
        await websocket.close(outbox.close_code, outbox.close_reason)
    except (WebSocketDisconnect, RuntimeError):
        pass  # the client went while this was written; the reader hears of it too
