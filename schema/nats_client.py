"""nats-py's client as publishers and gateways use it: with credentials, and safe with TLS.

What is overridden here is private: the dependency is pinned below the next minor version, and
tests/schema/test_nats_client.py fails if its meaning changes. It isn't exported by
`jarvis_mesh.schema`, since only who connects to NATS needs nats-py.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, Final

import nats.errors
import structlog
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.transport import TcpTransport

from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

_OVER_TCP: Final = frozenset({"nats", "tls"})
_ENCRYPTED: Final = frozenset({"tls", "wss"})
_WRONG_PASSWORD: Final = "authorization violation"  # noqa: S105 - nats-server's words
_CERTIFICATE_REFUSALS: Final = ("certificate required", "bad certificate", "unknown ca")
"""How OpenSSL calls what a server says of the client's certificate, without "alert" and "_"."""

log = structlog.get_logger(__name__)


class SecureClient(Client):
    """nats-py's client with credentials, which keeps quiet where TLS is missing.

    Certificates are read anew for each connection, so that they can be renewed while it lives.

    nats-py (2.16) leaves it to the server's first line whether there is TLS, whatever the URL
    says: who can answer in the server's place would be told user and password in plain text.
    """

    def __init__(self, credentials: NatsCredentials = NO_CREDENTIALS) -> None:
        super().__init__()
        self.credentials = credentials
        """Set before it connects."""
        self._last_tls: ssl.SSLContext | None = None

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for the next connection.

        Raises:
            SetupError: a certificate's file can't be read, and never could.
        """
        if not self.credentials.wants_tls:
            return super().ssl_context
        try:
            self._last_tls = self.credentials.tls_context()
        except SetupError as error:
            if self._last_tls is None:
                raise
            # While files are replaced, or never again: nats-py would stop reconnecting.
            log.warning("certificates for NATS not renewed", reason=error.message)
        return self._last_tls

    async def _connect_to_server(self, s: Any) -> None:
        if s.uri.scheme not in _OVER_TCP:
            await super()._connect_to_server(s)
            return
        s.last_attempt = time.monotonic()
        transport = self._transport = _TcpTransport()
        await transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except ConnectionError:
            self._raise_if_certificate_is_refused()
            raise
        if not self.is_connected:  # an end instead of an answer, with which nats-py would go on
            self._raise_if_certificate_is_refused()

    def _raise_if_certificate_is_refused(self) -> None:
        """Say what a server that wants certificates means by hanging up after the handshake.

        With TLS 1.3 its reason comes later than what we write, and can be lost with the socket.
        """
        if self._server_info.get("tls_verify") and getattr(self._transport, "is_encrypted", False):
            raise nats.errors.Error(_CERTIFICATE_REFUSALS[0])

    def _connect_command(self) -> bytes:
        scheme = self._current_server.uri.scheme if self._current_server else ""
        encrypted = scheme == "wss" or self._server_info.get("tls_required", False)
        if not encrypted and (self.credentials.wants_tls or scheme in _ENCRYPTED):
            raise nats.errors.Error("NATS speaks no TLS there, and it was asked for")
        return super()._connect_command()


class _TcpTransport(TcpTransport):
    """nats-py's, mended where a handshake fails and where a peer closes (2.16).

    It would wait for ever for the end of a connection whose handshake failed, and asyncio would
    warn of each connection that ended.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_encrypted = False

    async def connect_tls(
        self, uri: Any, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        assert self._io_writer is not None, "not connected"  # noqa: S101
        loop, bare = asyncio.get_running_loop(), self._io_writer.transport
        reader = asyncio.StreamReader(limit=buffer_size)
        protocol = _TlsProtocol(reader)
        host = uri if isinstance(uri, str) else uri.hostname
        try:
            async with asyncio.timeout(connect_timeout):
                transport = await loop.start_tls(bare, protocol, ssl_context, server_hostname=host)
        except BaseException:
            bare.abort()
            self._io_reader = self._io_writer = None  # nobody tells of its end
            raise
        assert transport is not None, "closed already"  # noqa: S101
        self.is_encrypted = True
        self._io_reader = reader
        self._io_writer = asyncio.StreamWriter(transport, protocol, reader, loop)


class _TlsProtocol(asyncio.StreamReaderProtocol):
    def eof_received(self) -> bool:
        super().eof_received()
        return False  # TLS can't be half open


def explain_refusal(error: Exception) -> str | None:
    """Return what to do about a refused connection; `None` if that isn't what *error* says."""
    text = f"{error!r} {error}".lower().replace("_", " ")
    if _WRONG_PASSWORD in text:
        return "NATS refuses the user: check its password or nkey"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"NATS's certificate can't be trusted ({error.verify_message}): check the CA "
            "certificates (MESH_NATS_CA) and the host's name in the URL"
        )
    if any(words in text for words in _CERTIFICATE_REFUSALS):
        return (
            "NATS refuses the client certificate, or there is none: check MESH_NATS_CERT and "
            "MESH_NATS_KEY"
        )
    if "no tls" in text:
        return f"{error}: check the URL, or MESH_NATS_CA"
    return None
