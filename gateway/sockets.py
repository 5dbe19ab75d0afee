"""uvicorn's HTTP protocol, with sockets set for small, urgent messages, and shown to the app.

asyncio switches Nagle's algorithm off only where a socket says that its protocol is TCP, which
those accepted from `socket.create_server` don't: a `subscribed` then waits 40 ms for the client
to acknowledge the `welcome`.

A socket that takes nothing should be noticed soon and cost little: by default asyncio keeps
64 KiB for each, and the kernel up to 4 MiB more. Under another ASGI server everything works
too, with that server's buffers.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

BUFFER_BYTES: Final = 16 * 1024
"""What asyncio keeps of a socket that takes nothing, before writing is paused."""
READ_BYTES: Final = 4096
"""What is read of a client's requests at a time: in 256 KiB, which asyncio reads otherwise, fit
14,000 requests, a tenth of a second in which nobody else is served."""
UNSENT_BYTES: Final = 64 * 1024
"""What the kernel keeps beyond what is on its way (TCP_NOTSENT_LOWAT, tcp(7))."""
_TRANSPORT: Final = "jarvis_mesh.transport"


class UpgradeRequest(NamedTuple):
    """A request for a WebSocket."""

    path: str
    method: str
    protocol: str
    """Such as `HTTP/1.1`."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    early: bytes = b""
    """What came behind it at once: a client should wait for the answer, and many don't."""


class Upgraded(Protocol):
    """What serves a WebSocket."""

    def upgrade(self, transport: asyncio.Transport, request: UpgradeRequest) -> None:
        """Answer *request*."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1, up to where a client asks for a WebSocket."""

    _received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # of asyncio's own sockets
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._received = data
        super().data_received(data)
        self._received = b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {_TRANSPORT: self.transport}

    def handle_websocket_upgrade(self) -> None:
        """Let the class that is uvicorn's `ws` answer, with the headers as they were parsed.

        uvicorn writes them down again for it to parse once more.
        """
        answering = cast(RequestResponseCycle | None, self.cycle)
        if answering is not None and not answering.response_complete:
            self.transport.close()  # it asks in the middle of another answer
            return
        self.connections.discard(self)
        make = cast(Callable[[ServerState], Upgraded], self.ws_protocol_class)
        upgraded = make(self.server_state)
        self.transport.set_protocol(cast(asyncio.BaseProtocol, upgraded))
        upgraded.upgrade(
            self.transport,
            UpgradeRequest(
                path=_path_of(self.url),
                method=self.scope["method"],
                protocol=f"HTTP/{self.scope['http_version']}",
                headers=self.headers,
                early=self._received[_end_of_request() :],
            ),
        )
        # Parser and protocol hold each other: without this they wait for the garbage collector.
        self.parser = None  # type: ignore[assignment]


def _path_of(url: bytes) -> str:
    """Return the path of a request's target; empty if there is none, as in `http://host`."""
    try:
        return (httptools.parse_url(url).path or b"").decode("latin-1")
    except httptools.HttpParserInvalidURLError:
        return ""


def _end_of_request() -> int:
    """Return where, in what was received last, the request ends that asks for another protocol.

    The parser says it with the exception that uvicorn handles right now.
    """
    upgrade = sys.exception()
    assert isinstance(upgrade, httptools.HttpParserUpgrade)  # noqa: S101 - who else would ask
    return int(upgrade.args[0])


def transport_of(scope: Scope) -> asyncio.Transport | None:
    """Return the transport of a request; `None` under a server that doesn't show it."""
    found: asyncio.Transport | None = scope.get("extensions", {}).get(_TRANSPORT)
    return found


def unacknowledged_bytes(transport: asyncio.Transport | None) -> int:
    """Return how many bytes were written that the other side's kernel hasn't taken yet."""
    if transport is None or transport.is_closing():
        return 0
    return transport.get_write_buffer_size() + _in_kernel(transport)


def _in_kernel(transport: asyncio.Transport) -> int:
    sock = transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":
        return 0
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])


def set_up(sock: socket.socket) -> None:
    """Set a listening socket, from which those of its connections have their options."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
