"""The gateway's listening socket: bound before anything is started, so that a taken port is
one line and not a half-started mesh."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from jarvis_mesh.gateway.sockets import set_up
from jarvis_mesh.schema.errors import SetupError

_BACKLOG: Final = 2048
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def listen(host: str, port: int, *, is_open: bool) -> socket.socket:
    """Return a socket that listens on *host* and *port*.

    Args:
        host: A name or an address.
        port: 0 picks a free one.
        is_open: Whether it may be reached from other machines.

    Raises:
        SetupError: no such host, the port is taken, or others could reach it.
    """
    family, address = _resolve(host, port)
    if not is_open and not ipaddress.ip_address(address[0]).is_loopback:
        raise SetupError(
            f"--host {host} lets other machines in, and without authentication anybody could read "
            "and publish everything: set MESH_JWT_SECRET or MESH_JWKS_URL, or add --insecure if "
            "that is what you want"
        )
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it the port of a gateway just stopped stays taken for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_up(sock)  # before the first connection, which has its options from it
        sock.bind(address)
        sock.listen(_BACKLOG)  # not before now is the port ours alone
    except OSError as error:
        sock.close()
        raise SetupError(_reason(error, host, port, "--port")) from None
    return sock


@contextmanager
def spread(sock: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    """Yield *count* sockets on the address of *sock*, which is the first of them.

    The kernel spreads new connections among them; where it doesn't, all are one socket. A program
    that doesn't ask to share the address, as `listen` doesn't, is refused it as ever.

    Raises:
        SetupError: the kernel refuses.

    Source: socket(7), SO_REUSEPORT.
    """
    with ExitStack() as closing:
        if sys.platform != "linux":
            yield [sock, *(closing.enter_context(sock.dup()) for _ in range(count - 1))]
            return
        # Not before it listens: until then another program could have come in as well.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sockets = [sock]
        for _ in range(count - 1):
            another = closing.enter_context(socket.socket(sock.family, socket.SOCK_STREAM))
            another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                set_up(another)
                another.bind(sock.getsockname())
                another.listen(_BACKLOG)
            except OSError as error:
                host, port = sock.getsockname()[:2]
                raise SetupError(_reason(error, host, port, "--port")) from None
            sockets.append(another)
        yield sockets


def check_port(port: int) -> None:
    """Raise `SetupError` when something on this machine listens on NATS's *port* already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            raise SetupError(_reason(error, "127.0.0.1", port, "--nats-port")) from None


def url_of(sock: socket.socket, *, tls: bool) -> str:
    """Return the URL by which this machine reaches what listens on *sock*, with *tls* or not."""
    host, port = sock.getsockname()[:2]
    host = _WILDCARDS.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise SetupError(f"--host {host!r} is no address of this machine: {error}") from None
    return family, (str(address[0]), port)


def _reason(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: stop what uses it, or choose another with {flag}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights: choose one above 1023 with {flag}"
    return f"{host}:{port} can't be listened on: {error.strerror}"
