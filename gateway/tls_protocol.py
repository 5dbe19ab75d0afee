"""TLS on a connection: asyncio's own, with buffers that many slow clients can have.

asyncio gives each connection 256 KiB to read into, as much again for what the app doesn't take,
and behind its write buffer the socket's, which it doesn't count. Here all connections read
into one buffer, and what waits for the socket is one sum with one high-water mark: that a client is
slow is known as soon as without TLS, and it keeps as little.

`asyncio.sslproto` isn't public. The names used are those of 3.11 to 3.14;
tests/gateway/test_tls_protocol.py says what has to stay true.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from typing import Final, cast

READ_BYTES: Final = 16 * 1024
"""Read at once, about one TLS record; and kept of what the app doesn't take for now."""
SHUT_WITHIN: Final = 30.0
"""Seconds for a client to take what was left and to say that it closes too."""
_BUFFER: Final = bytearray(READ_BYTES)
"""Where all connections' bytes arrive; they are handed to OpenSSL at once."""


def _gone(_count: int) -> memoryview:
    raise AssertionError("a connection that was lost reads no more")


class TlsProtocol(SSLProtocol):
    """TLS between a socket and *app*, from its handshake on.

    Args:
        app: Is connected once the handshake is done.
        context: Has the certificate.
        handshake_timeout: Seconds for the client's part of it.
    """

    max_size = READ_BYTES

    def __init__(
        self, app: asyncio.Protocol, context: ssl.SSLContext, handshake_timeout: float
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            app,
            context,
            None,  # type: ignore[arg-type]  # nobody waits: what fails is the client's affair
            server_side=True,
            ssl_handshake_timeout=handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=SHUT_WITHIN,
        )
        self._ssl_buffer, self._ssl_buffer_view = _BUFFER, memoryview(_BUFFER)
        self._set_read_buffer_limits(high=READ_BYTES)  # type: ignore[attr-defined]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket
        # What the socket doesn't take at once stays here, where the app's limits are kept to.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        # What is left of the way to the app: a circle, which kept OpenSSL's memory until the
        # garbage collector came by.
        self._app_protocol_get_buffer = self._app_protocol_buffer_updated = _gone

    def _get_write_buffer_size(self) -> int:
        beneath = cast(asyncio.Transport | None, self._transport)
        waiting: int = super()._get_write_buffer_size()  # type: ignore[misc]
        return waiting if beneath is None else waiting + beneath.get_write_buffer_size()
