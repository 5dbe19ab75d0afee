"""How a connection to NATS is secured: TLS, client certificates, nkeys.

    EventPublisher("agent-service", "tls://nats.example:4222", credentials=NatsCredentials(
        ca_file="ca.pem", cert_file="agent.pem", key_file="agent.key", nkey_seed=seed))

Publishers and gateways alike are given a value of it beside the URL. It isn't exported by
`jarvis_mesh.schema`, since only who connects to NATS needs nats-py.

Source: NATS documentation, "Enabling TLS", "NKeys"; docs/operations.md, "NATS in production".
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
import nkeys
import structlog
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.transport import TcpTransport

from jarvis_mesh.schema.errors import SetupError

_OVER_TCP: Final = frozenset({"nats", "tls"})
_ENCRYPTED: Final = frozenset({"tls", "wss"})
_WRONG_PASSWORD: Final = "authorization violation"  # noqa: S105 - nats-server's words
_CERTIFICATE_REFUSALS: Final = ("certificate required", "bad certificate", "unknown ca")
"""How OpenSSL calls what a server says of the client's certificate, without "alert" and "_"."""


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NatsCredentials:
    """What a URL doesn't say. Without any of it the URL alone counts.

    Certificates are always verified: with `ca_file` by those in it, else by those of the system.
    With `ca_file` or a client certificate, a server without TLS is refused, as with `tls://`.

    Raises:
        SetupError: one half of a client certificate is missing, or the seed isn't one.
    """

    ca_file: str | os.PathLike[str] | None = None
    """PEM file of the authorities whose certificates NATS may show."""
    cert_file: str | os.PathLike[str] | None = None
    """PEM file of the client certificate, and of what leads to its authority."""
    key_file: str | os.PathLike[str] | None = None
    """PEM file of its private key, without a passphrase."""
    nkey_seed: str | None = field(default=None, repr=False)
    """`SU…`: the secret of an nkey user, instead of user and password in the URL."""

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise SetupError(
                "a client certificate for NATS is two files: give both MESH_NATS_CERT and "
                "MESH_NATS_KEY"
            )
        if self.nkey_seed is not None:
            public_nkey(self.nkey_seed)

    @property
    def wants_tls(self) -> bool:
        """Whether a server without TLS is refused whatever the URL says."""
        return self.ca_file is not None or self.cert_file is not None

    def options(self, urls: str) -> dict[str, Any]:
        """Return the keywords for the `connect` of a `SecureClient` that has these credentials.

        Raises:
            SetupError: *urls* have a password and there is an nkey too.
        """
        if self.nkey_seed is None:
            return {}
        if any(urlsplit(url).password for url in urls.split(",")):
            raise SetupError("the NATS URL has a password, and there is an nkey: keep one")
        return {"nkeys_seed_str": self.nkey_seed}

    def tls_context(self) -> ssl.SSLContext:
        """Return the context for a connection, from the files as they are now.

        Raises:
            SetupError: a file can't be read, or isn't PEM.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(
                f"{self.ca_file} isn't a file of CA certificates (PEM): {error}"
            ) from None
        if self.cert_file is not None:
            try:
                # Asked for a passphrase, OpenSSL would wait for somebody to type one.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (OSError, ssl.SSLError) as error:
                raise SetupError(
                    f"{self.cert_file} and {self.key_file} aren't a certificate and its key "
                    f"(PEM, without a passphrase): {error}"
                ) from None
        return context


NO_CREDENTIALS: Final = NatsCredentials()
"""Those of whom the URL says everything."""


class SecureClient(Client):
    """nats-py's client with credentials, which keeps quiet where TLS is missing.

    Certificates are read anew for each connection, so that they can be renewed while it lives.

    nats-py (2.16) leaves it to the server's first line whether there is TLS, whatever the URL
    says: who can answer in the server's place would be told user and password in plain text.
    What is overridden is private; tests/schema/test_nats_credentials.py fails if it isn't used.
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


def public_nkey(seed: str) -> str:
    """Return the public key, `U…`, of a user's nkey.

    Raises:
        SetupError: *seed* isn't the seed of a user. The message doesn't show it.
    """
    encoded = seed.strip().encode()
    try:
        kind, raw = nkeys.decode_seed(encoded)
        # Encoded again, since nkeys (0.2) doesn't look at the checksum.
        is_whole = nkeys.encode_seed(raw, kind) == encoded
    except (nkeys.NkeysError, ValueError):
        is_whole = False
    if not is_whole or kind != nkeys.PREFIX_BYTE_USER:
        raise SetupError("the nkey seed isn't that of a NATS user: it is SU and 56 more characters")
    public: bytes = nkeys.from_seed(bytearray(encoded)).public_key
    return public.decode()


def new_nkey_seed() -> str:
    """Return the seed of a new user."""
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


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
