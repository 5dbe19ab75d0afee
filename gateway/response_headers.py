"""What every answer says to browsers: what may be done with it, and whose pages may read it.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol; Content Security Policy Level 3;
docs/security.md, "Promises".
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jarvis_mesh.gateway.guard import Guard

_FOR_ALL: Final = {
    # What isn't our page is data: opened in a browser, it is shown and runs nothing.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OWN_PAGES: Final = {"Cross-Origin-Resource-Policy": "same-origin"}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}


class ResponseHeaders:
    """ASGI middleware that adds them, to refusals too."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origins = headers.getlist("origin")
        shared = origins[0] if self._guard.shares_with(origins) else None

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(MutableHeaders(scope=message), shared)
            await send(message)

        if shared and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _add(headers: MutableHeaders, shared: str | None) -> None:
    """Add what a page's own headers don't say.

    Args:
        shared: The origin, other than ours, whose pages may read the answer.
    """
    for name, value in (_FOR_ALL if shared else _FOR_ALL | _OWN_PAGES).items():
        headers.setdefault(name, value)
    headers.add_vary_header("Origin")
    if shared:
        headers["Access-Control-Allow-Origin"] = shared
