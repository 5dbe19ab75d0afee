"""The ASGI application: routes, and the gateway's life within the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.guard import GuardMiddleware
from jarvis_mesh.gateway.headers import HeadersMiddleware
from jarvis_mesh.gateway.http_admission import admit
from jarvis_mesh.gateway.http_errors import refusal
from jarvis_mesh.gateway.http_events import get_events
from jarvis_mesh.gateway.http_publish import post_events
from jarvis_mesh.gateway.metrics import CONTENT_TYPE
from jarvis_mesh.gateway.websocket import serve_websocket
from jarvis_mesh.gateway.worker_metrics import WorkerMetrics
from jarvis_mesh.schema.errors import MeshError

CANCEL_AGAIN_AFTER: Final = 0.5
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}


def create_app(
    settings: Settings | None = None,
    *,
    gateway: Gateway | None = None,
    shared_metrics: WorkerMetrics | None = None,
) -> Starlette:
    """Return the application, for any ASGI server: `uvicorn --factory …gateway.app:create_app`.

    Args:
        settings: By default those of the environment.
        gateway: One that the caller wants to drain itself.
        shared_metrics: Those of all processes that serve, if there are several.

    Raises:
        SetupError: a setting is wrong.
    """
    served = gateway or Gateway(settings or Settings.load())

    async def websocket(socket: WebSocket) -> None:
        await serve_websocket(socket, served)

    async def healthz(_request: Request) -> Response:
        failed = served.failed.is_set()
        return PlainTextResponse("failed\n" if failed else "ok\n", 500 if failed else 200)

    async def readyz(_request: Request) -> Response:
        ready = served.is_ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def events(request: Request) -> Response:
        if request.method == "POST":
            return await post_events(request, served)
        return await get_events(request, served)

    async def metrics(request: Request) -> Response:
        try:
            (await admit(request, served)).grants.check_operator()
        except MeshError as error:
            return refusal(error, served.metrics)
        if shared_metrics is not None:
            text = await shared_metrics.render()
        else:
            text = served.metrics.render()
        return Response(text, media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            Route("/", _index),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/events", events, methods=["GET", "POST"]),
            WebSocketRoute("/v1/ws", websocket),
        ],
        middleware=[
            Middleware(HeadersMiddleware, guard=served.guard),  # on what the guard refuses too
            Middleware(GuardMiddleware, guard=served.guard),
        ],
        lifespan=lambda _app: _living(served),
    )


@asynccontextmanager
async def _living(gateway: Gateway) -> AsyncIterator[None]:
    async with gateway.tasks:
        running = gateway.tasks.create_task(gateway.run())
        yield
        while not running.done():
            # nats-py swallows a cancellation that hits it at the wrong moment.
            running.cancel()
            await asyncio.wait({running}, timeout=CANCEL_AGAIN_AFTER)


async def _index(_request: Request) -> Response:
    page = files("jarvis_mesh.gateway").joinpath("index.html").read_text()
    return HTMLResponse(page, headers=_PAGE_HEADERS)
