"""Opening a WebSocket to a gateway, up to its `welcome`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.http11 import Response
from websockets.typing import Subprotocol

from jarvis_mesh.client.credentials import is_loopback
from jarvis_mesh.client.formats import Format, Item
from jarvis_mesh.schema.errors import (
    BadRequestError,
    ForbiddenError,
    MeshError,
    SetupError,
    UnauthorizedError,
    UnavailableError,
)
from jarvis_mesh.schema.wire import PROTOCOL, Welcome

PATH: Final = "/v1/ws"
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""An event may take 4 MiB as JSON, and gateways send several at once."""
CLOSE_WITHIN: Final = 1.0
"""Seconds for the other end to agree; our cursor says all that matters."""
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_MAX_REASON: Final = 200
"""Characters of what a gateway says about a refusal that an error repeats."""

_socket_log = logging.getLogger("jarvis_mesh.client.websocket")
# At DEBUG, websockets writes down headers and frames, and with them the token.
_socket_log.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that was welcomed."""

    socket: ClientConnection
    welcome: Welcome
    rest: tuple[Item, ...]
    """What came together with the welcome."""


def socket_url(url: str) -> str:
    """Return the WebSocket URL of the gateway at *url*.

    Args:
        url: With http, https, ws or wss; a path before /v1/ws is kept.

    Raises:
        SetupError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise SetupError(f"{url!r} is no gateway's URL; write one such as http://127.0.0.1:3200")
    path = parts.path.rstrip("/").removesuffix(PATH) + PATH
    return parts._replace(scheme=_SCHEMES[parts.scheme], path=path, fragment="").geturl()


async def open_socket(url: str, form: Format, *, within: float, token: str | None = None) -> Opened:
    """Return a connection to the gateway at *url*, with its welcome.

    Args:
        url: As `socket_url` returns it.
        form: JSON or CBOR.
        within: Seconds for all of it.
        token: Who we are.

    Raises:
        UnavailableError: nobody answers there, or not as a gateway does.
        UnauthorizedError, ForbiddenError: the gateway doesn't let us in.
    """
    try:
        async with asyncio.timeout(within):
            socket = await _connect(url, form, token)
            try:
                return await _read_welcome(url, socket, form, has_token=token is not None)
            except BaseException:
                await close_socket(socket)
                raise
    except TimeoutError:
        raise UnavailableError(f"no gateway at {url}: no answer within {within:g} s") from None
    except InvalidStatus as error:
        raise _refusal(url, error.response, token) from None
    except (OSError, WebSocketException, BadRequestError) as error:
        raise UnavailableError(f"no gateway at {url}: {error}") from None


async def close_socket(socket: ClientConnection) -> None:
    """Close *socket* within a second, or at once when cancelled. Idempotent."""
    try:
        await socket.close()
    finally:
        socket.transport.abort()


async def _connect(url: str, form: Format, token: str | None) -> ClientConnection:
    return await connect(
        url,
        subprotocols=[Subprotocol(form.subprotocol)],
        # A redirect to another origin doesn't take it along.
        additional_headers=None if token is None else {"Authorization": f"Bearer {token}"},
        logger=_socket_log,
        compression=None,  # events come compressed; and it costs 64 KiB a connection
        # A paused reader sees no pong. That the gateway lives is seen by its heartbeats.
        ping_interval=None,
        open_timeout=None,  # the caller's timeout covers it
        close_timeout=CLOSE_WITHIN,
        max_size=MAX_MESSAGE_BYTES,
        # A proxy from the environment can't reach what listens on this machine alone.
        proxy=None if is_loopback(urlsplit(url).hostname or "") else True,
    )


async def _read_welcome(
    url: str, socket: ClientConnection, form: Format, *, has_token: bool
) -> Opened:
    if socket.subprotocol != form.subprotocol:
        raise BadRequestError(f"it doesn't speak {form.subprotocol}")
    welcome, *rest = form.decode(await socket.recv())
    if not isinstance(welcome, Welcome):
        raise BadRequestError("it began with something else than a welcome")
    if welcome.protocol != PROTOCOL:
        raise BadRequestError(f"it speaks version {welcome.protocol} of the protocol, not 1")
    if welcome.auth == "required":
        raise _lost_token(url) if has_token else _wants_token(url)
    return Opened(socket, welcome, tuple(rest))


def _refusal(url: str, response: Response, token: str | None) -> MeshError:
    status = response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        if token is None:
            return _wants_token(url)
        return UnauthorizedError(
            f"the gateway at {url} refuses the token{_reason(response, token)}"
        )
    if status == HTTPStatus.FORBIDDEN:
        return ForbiddenError(f"the gateway at {url} refuses this client (403)")
    return UnavailableError(f"no gateway at {url}: it answered with status {status}")


def _wants_token(url: str) -> UnauthorizedError:
    return UnauthorizedError(
        f"the gateway at {url} wants a token: give Mesh.connect a token= or get_token="
    )


def _lost_token(url: str) -> UnauthorizedError:
    return UnauthorizedError(
        f"the gateway at {url} wants a token, though one was sent: a proxy on the way must pass "
        "on the header Authorization"
    )


def _reason(response: Response, token: str) -> str:
    """Return what a gateway says on one line, without the token; nothing if it says a page."""
    text = (response.body or b"").decode(errors="replace").strip().replace(token, "…")
    return f": {text}" if 0 < len(text) <= _MAX_REASON and text.isprintable() else ""
