"""Sockets set for small, urgent messages, and shown to the app.

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
from typing import Final, NamedTuple, Protocol

from starlette.types import Scope

UNSENT_BYTES: Final = 64 * 1024
"""What the kernel keeps beyond what is on its way (TCP_NOTSENT_LOWAT, tcp(7))."""
TRANSPORT: Final = "jarvis_mesh.transport"
"""Where the scope of a request has the transport, among its extensions."""


class UpgradeRequest(NamedTuple):
    """A request for a WebSocket."""

    path: str
    method: str
    protocol: str
    """Such as `HTTP/1.1`."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    peer: str | None = None
    """The address that it comes from; `None` if it isn't known."""
    early: bytes = b""
    """What came behind it at once: a client should wait for the answer, and many don't."""


class Upgraded(Protocol):
    """What serves a WebSocket."""

    def upgrade(self, transport: asyncio.Transport, request: UpgradeRequest) -> None:
        """Answer *request*."""


def transport_of(scope: Scope) -> asyncio.Transport | None:
    """Return the transport of a request; `None` under a server that doesn't show it."""
    found: asyncio.Transport | None = scope.get("extensions", {}).get(TRANSPORT)
    return found


def unacknowledged_bytes(transport: asyncio.Transport | None) -> int:
    """Return how many bytes were written that the other side's kernel hasn't taken yet."""
    if transport is None or transport.is_closing():
        return 0
    return unsent_bytes(transport)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return the same of one that may be closing."""
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
