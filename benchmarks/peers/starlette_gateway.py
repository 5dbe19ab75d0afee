"""A gateway as one writes it first: nats-py, Starlette, and a send to each client in turn.

    python -m benchmarks.peers.starlette_gateway PORT

The event is the NATS message's body, encoded once. NATS's address comes from BENCH_NATS_URL.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator

import nats
import uvicorn
from nats.aio.msg import Msg
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

clients: set[WebSocket] = set()


async def deliver(message: Msg) -> None:
    """Send what NATS delivers to every client."""
    for client in tuple(clients):
        # Who has gone meanwhile leaves in `serve`.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await client.send_bytes(message.data)


async def serve(client: WebSocket) -> None:
    """Serve one client until it goes."""
    await client.accept()
    clients.add(client)
    await client.send_text("subscribed")
    try:
        while True:
            await client.receive_text()
    except WebSocketDisconnect:
        clients.discard(client)


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Hold the connection to NATS."""
    connection = await nats.connect(os.environ["BENCH_NATS_URL"], inbox_prefix=b"_INBOX.gateway")
    await connection.subscribe("live.>", cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0)
    yield
    await connection.close()


app = Starlette(routes=[WebSocketRoute("/", serve)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
