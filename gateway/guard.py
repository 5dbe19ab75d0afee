"""Which web pages may talk to the gateway: checks of Origin and Host for every request.

A page of any site can open a WebSocket to this machine (browsers don't apply the same-origin
policy to them), and by DNS rebinding can make its own name mean 127.0.0.1. The Origin of the
first and the Host of the second give them away.

Source: RFC 6455, section 10.2; docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

_HOST: Final = re.compile(
    r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::\d{1,5})?"
)
_OPEN_TO_ALL: Final = frozenset({"/healthz", "/readyz"})
"""Asked by orchestrators under any name, and telling nothing."""


class Guard:
    """Says who may not.

    Args:
        allowed_origins: Origins beside the gateway's own, such as `https://app.example`.
        any_host: Whether Host may be any name, as when it listens beyond loopback.
    """

    def __init__(self, allowed_origins: Collection[str], *, any_host: bool) -> None:
        self._allowed_origins = frozenset(allowed_origins)
        self._any_host = any_host

    def refusal(self, hosts: Sequence[str], origins: Iterable[str]) -> str | None:
        """Return why a request with these Host and Origin headers is refused, if it is."""
        if len(hosts) != 1:
            return "A request has one Host."
        if not self._any_host and not is_loopback(hosts[0]):
            return "Without authentication the gateway answers to localhost only."
        for origin in origins:
            own = (f"http://{hosts[0]}", f"https://{hosts[0]}")
            if origin not in own and origin not in self._allowed_origins:
                return f"Pages of {origin!r:.100} may not; see MESH_ALLOWED_ORIGINS."
        return None


class GuardMiddleware:
    """ASGI middleware that answers 403 to what the guard refuses."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = None
        if scope["type"] in ("http", "websocket") and scope["path"] not in _OPEN_TO_ALL:
            headers = Headers(scope=scope)
            reason = self._guard.refusal(headers.getlist("host"), headers.getlist("origin"))
        if reason is None:
            await self._app(scope, receive, send)
            return
        response = PlainTextResponse(f"{reason}\n", 403)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Say whether *host*, with or without a port, names this machine."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match["address"] or match["name"]).lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
