"""Headers that go out with every answer: what a browser may make of it, and who may read it.

An answer of the gateway is data. No page may frame it, guess another type for it or load it as
its own script or picture. Scripts of other origins read it only if MESH_ALLOWED_ORIGINS has them,
for which browsers want to be told so (CORS). Cookies play no part: who somebody is stands in a
header.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol;
https://owasp.org/www-project-secure-headers/
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jarvis_mesh.gateway.guard import Guard

ALWAYS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Unless an answer has its own, as a page has its Content-Security-Policy."""
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
"""What pages of allowed origins may do beyond what any page may (see `Guard.shares_with`)."""
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})


class HeadersMiddleware:
    """ASGI middleware that adds them, and answers what browsers ask before they ask."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        origins = asked.getlist("origin")
        shared_with = origins[0] if self._guard.shares_with(origins) else None

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                _add(headers, shared_with)
                message["headers"] = headers.raw
            await send(message)

        if shared_with is not None and _is_preflight(scope, asked):
            answer = Response(status_code=HTTPStatus.NO_CONTENT, headers=PREFLIGHT)
            await answer(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _add(headers: MutableHeaders, shared_with: str | None) -> None:
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    headers.add_vary_header("Origin")  # or a cache would give one origin's answer to another
    if shared_with is not None:
        headers["Access-Control-Allow-Origin"] = shared_with


def _is_preflight(scope: Scope, asked: Headers) -> bool:
    return scope.get("method") == "OPTIONS" and "access-control-request-method" in asked
