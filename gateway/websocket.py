"""`GET /v1/ws` over ASGI, for servers other than ours (websocket_protocol.py).

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.connection import Connection
from jarvis_mesh.gateway.formats import JSON, SOCKET_FORMATS, Cbor, Json
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.lifetime import live_out
from jarvis_mesh.gateway.outbox import QueuedOutbox
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.sockets import transport_of
from jarvis_mesh.gateway.task_scope import TaskScope

_FORMATS: Final = {each.subprotocol: each for each in SOCKET_FORMATS}


def choose_format(offered: Sequence[str]) -> Json | Cbor | None:
    """Return the form for the subprotocols that a client offers; `None` if it knows neither."""
    if not offered:
        return JSON
    return next((_FORMATS[name] for name in offered if name in _FORMATS), None)


async def serve_websocket(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one client until it or the gateway ends the connection."""
    offered = websocket.scope["subprotocols"]
    form = choose_format(offered)
    if gateway.is_draining:
        await _deny(websocket, 503, "This gateway is shutting down; try another one.\n")
    elif form is None:
        await _deny(websocket, 400, f"Unknown subprotocol; there are {' and '.join(_FORMATS)}.\n")
    else:
        await websocket.accept(form.subprotocol if offered else None)
        await _serve(websocket, gateway, form)


async def _deny(websocket: WebSocket, status: int, text: str) -> None:
    await websocket.send_denial_response(PlainTextResponse(text, status))


async def _serve(websocket: WebSocket, gateway: Gateway, form: Json | Cbor) -> None:
    transport = transport_of(websocket.scope)
    outbox = QueuedOutbox(gateway.settings.high_water_bytes, form.separator, transport)
    tasks = TaskScope(gateway.tasks)
    sender = Sender(form, outbox, gateway.services.encoded_runs)
    connection = Connection(sender, ANYBODY, gateway.services, tasks)
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
