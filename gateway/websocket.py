"""`GET /v1/ws`: the socket of one client, over ASGI.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.connection import Connection
from jarvis_mesh.gateway.formats import JSON, SOCKET_FORMATS, Cbor, Json
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.lifetime import live_out
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.sockets import transport_of, unacknowledged_bytes
from jarvis_mesh.schema.codec import iter_items
from jarvis_mesh.schema.errors import BadRequestError, EventError, MeshError
from jarvis_mesh.schema.wire import decode_json

FAREWELL: Final = 60.0
"""Seconds that a client which is being closed has for taking the close frame."""


def choose_format(offered: Sequence[str]) -> Json | Cbor | None:
    """Return the form for the subprotocols that a client offers; `None` if it knows neither."""
    if not offered:
        return JSON
    known = {each.subprotocol: each for each in SOCKET_FORMATS}
    return next((known[name] for name in offered if name in known), None)


async def serve_websocket(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one client until it or the gateway ends the connection."""
    offered = websocket.scope["subprotocols"]
    form = choose_format(offered)
    if gateway.is_draining:
        await _deny(websocket, 503, "This gateway is shutting down; try another one.\n")
    elif form is None:
        known = " and ".join(each.subprotocol for each in SOCKET_FORMATS)
        await _deny(websocket, 400, f"Unknown subprotocol; there are {known}.\n")
    else:
        await websocket.accept(form.subprotocol if offered else None)
        await _serve(websocket, gateway, form)


async def _deny(websocket: WebSocket, status: int, text: str) -> None:
    await websocket.send_denial_response(PlainTextResponse(text, status))


async def _serve(websocket: WebSocket, gateway: Gateway, form: Json | Cbor) -> None:
    transport = transport_of(websocket.scope)
    outbox = Outbox(gateway.settings.high_water_bytes, form.separator)
    unacknowledged = partial(unacknowledged_bytes, transport)
    services = gateway.services
    sender = Sender(form, outbox, services.encoded_runs, services.clock, unacknowledged)
    async with asyncio.TaskGroup() as tasks:
        connection = Connection(sender, ANYBODY, gateway.services, tasks)
        with gateway.serving(connection):
            connection.welcome()
            try:
                await live_out(
                    tasks,
                    sender,
                    transport,
                    listening=_read(websocket, connection, sender),
                    writing=_write(websocket, sender, outbox, is_text=form.is_text),
                    feeding=connection.run(),
                    farewell=FAREWELL,
                    hurry=gateway.hurry,
                )
            finally:
                await connection.close()


async def _read(websocket: WebSocket, connection: Connection, sender: Sender) -> None:
    """Take what the client says, one message after the other."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        values = _items(message["bytes"]) if text is None else _lines(text)
        for value in values:
            if isinstance(value, MeshError):
                connection.refuse(value)
                await sender.drained()
            else:
                await connection.receive(value)


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


async def _write(websocket: WebSocket, sender: Sender, outbox: Outbox, *, is_text: bool) -> None:
    """Write what is in the outbox until it is finished, then the close frame."""
    try:
        while message := await outbox.take():
            if is_text:
                await websocket.send_text(message.decode())
            else:
                await websocket.send_bytes(message)
            outbox.sent()
        await websocket.close(sender.close_code, sender.close_reason)
    except (WebSocketDisconnect, RuntimeError):
        pass  # the client went while this was written; the reader hears of it too
