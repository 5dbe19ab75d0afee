"""Which web pages may talk to the gateway: checks of Origin and Host for every request.

A page of any site can open a WebSocket to this machine (browsers don't apply the same-origin
policy to them), and by DNS rebinding can make its own name mean 127.0.0.1. The Origin of the
first and the Host of the second give them away: a browser sends the name that it was told, so
a name must be known; an address can't be rebound.

Source: RFC 6455, section 10.2; RFC 9110, section 7.2 (Host); RFC 6454, section 7 (Origin);
docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from jarvis_mesh.config.networks import ANY_HOST

OPEN_TO_ALL: Final = frozenset({"/healthz", "/readyz"})
"""Asked by orchestrators under any name, and telling nothing."""
_HOST: Final = re.compile(
    r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Host(NamedTuple):
    """Where a request or a page says that it comes from."""

    name: str
    """In lower case; of IPv6 the shortest form, without brackets."""
    port: int | None


class Guard:
    """Says who may not.

    Args:
        allowed_origins: Origins beside the gateway's own, such as `https://app.example`.
        allowed_hosts: Names beside those of this machine, in lower case; `*` is any.
        any_address: Whether Host may be any address, as when it listens beyond loopback.
    """

    def __init__(
        self,
        allowed_origins: Collection[str],
        allowed_hosts: Collection[str] = (),
        *,
        any_address: bool,
    ) -> None:
        self._allowed_origins = frozenset(map(_parse_origin, allowed_origins)) - {None}
        self._allowed_hosts = frozenset(allowed_hosts)
        self._any_address = any_address

    def refusal(self, hosts: Sequence[str], origins: Iterable[str]) -> str | None:
        """Return why a request with these Host and Origin headers is refused, if it is."""
        host = parse_host(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return "A request has one Host, a name or an address."
        if not self._is_ours(host.name):
            return f"{host.name!r:.100} isn't known as this gateway; see MESH_ALLOWED_HOSTS."
        for text in origins:
            if not self._may(text, host):
                return f"Pages of {text!r:.100} may not; see MESH_ALLOWED_ORIGINS."
        return None

    def shares_with(self, origins: Sequence[str]) -> bool:
        """Say whether pages of the one origin there is may read answers, by the setting."""
        return len(origins) == 1 and _parse_origin(origins[0]) in self._allowed_origins

    def _is_ours(self, name: str) -> bool:
        if name in self._allowed_hosts or ANY_HOST in self._allowed_hosts or _is_here(name):
            return True
        return self._any_address and _parse_address(name) is not None

    def _may(self, text: str, host: Host) -> bool:
        origin = _parse_origin(text)
        if origin is None:
            return False  # `null` too: a sandboxed page, a file
        scheme, name, port = origin
        # Behind a proxy that does TLS it is https, though we are asked without.
        is_own = (name, port) == (host.name, host.port or _DEFAULT_PORTS[scheme])
        return is_own or origin in self._allowed_origins


class GuardMiddleware:
    """ASGI middleware that answers 403 to what the guard refuses."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = None
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN_TO_ALL:
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


def parse_host(text: str) -> Host | None:
    """Return what a Host header says; `None` if that isn't a name or an address, with a port."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    port = None if match["port"] is None else int(match["port"])
    if match["address"] is not None:
        address = _parse_address(match["address"])
        return None if address is None else Host(str(address), port)
    return Host(match["name"].lower(), port)


def _parse_origin(text: str) -> tuple[str, str, int] | None:
    """Return scheme, name and port of an origin; `None` if it isn't one of a web page."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORTS:
        return None
    host = parse_host(rest)
    if host is None:
        return None
    return scheme, host.name, _DEFAULT_PORTS[scheme] if host.port is None else host.port


def _is_here(name: str) -> bool:
    """Say whether *name* is this machine, whatever DNS says (RFC 6761, section 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _parse_address(name)
    return address is not None and address.is_loopback


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
