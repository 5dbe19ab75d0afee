"""`GET /v1/ws`: the socket of one client, over ASGI.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.connection import Connection
from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.schema.codec import iter_items
from jarvis_mesh.schema.errors import BadRequestError, EventError
from jarvis_mesh.schema.wire import decode_json

FAREWELL: Final = 60.0
"""Seconds that a client which is being closed has for taking the close frame."""


def choose_format(offered: Sequence[str]) -> Format | None:
    """Return the form for the subprotocols that a client offers; `None` if it knows neither."""
    if not offered:
        return Format.JSON
    return next((each for name in offered for each in Format if each.subprotocol == name), None)


async def serve_websocket(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one client until it or the gateway ends the connection."""
    offered = websocket.scope["subprotocols"]
    form = choose_format(offered)
    if gateway.is_draining:
        await _deny(websocket, 503, "This gateway is shutting down; try another one.\n")
    elif form is None:
        known = " and ".join(each.subprotocol for each in Format)
        await _deny(websocket, 400, f"Unknown subprotocol; there are {known}.\n")
    else:
        await websocket.accept(form.subprotocol if offered else None)
        await _serve(websocket, gateway, form)


async def _deny(websocket: WebSocket, status: int, text: str) -> None:
    await websocket.send_denial_response(PlainTextResponse(text, status))


async def _serve(websocket: WebSocket, gateway: Gateway, form: Format) -> None:
    outbox = Outbox(gateway.settings.max_unsent_bytes, form.separator)
    async with asyncio.TaskGroup() as tasks:
        connection = Connection(form, outbox, ANYBODY, gateway.services, tasks)
        with gateway.serving(connection):
            connection.welcome()
            reader = tasks.create_task(_read(websocket, connection))
            writer = tasks.create_task(_write(websocket, connection, outbox, form))
            ended = tasks.create_task(connection.ended.wait())
            try:
                await asyncio.wait({reader, writer, ended}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    await asyncio.wait({writer}, timeout=FAREWELL)
            finally:
                for task in (reader, writer, ended):
                    task.cancel()
                await connection.close()


async def _read(websocket: WebSocket, connection: Connection) -> None:
    """Take what the client says, one message after the other."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None:
            await _take_binary(message["bytes"], connection)
        else:
            await _take_text(text, connection)


async def _take_text(text: str, connection: Connection) -> None:
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            value = decode_json(line)
        except BadRequestError as error:
            connection.refuse(error)
            await connection.drained()
        else:
            await connection.receive(value)


async def _take_binary(data: bytes, connection: Connection) -> None:
    items = iter_items(data)
    while True:
        try:
            value = next(items)
        except StopIteration:
            return
        except EventError as error:  # where the next item would start can't be known
            connection.refuse(BadRequestError(error.message))
            await connection.drained()
            return
        await connection.receive(value)


async def _write(
    websocket: WebSocket, connection: Connection, outbox: Outbox, form: Format
) -> None:
    """Write what is in the outbox until it is finished, then the close frame."""
    try:
        while message := await outbox.take():
            if form.is_text:
                await websocket.send_text(message.decode())
            else:
                await websocket.send_bytes(message)
            outbox.sent()
        await websocket.close(connection.close_code, connection.close_reason)
    except WebSocketDisconnect:
        pass  # the reader hears of it too
