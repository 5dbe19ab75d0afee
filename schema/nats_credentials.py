"""How a connection to NATS is secured, as a value: TLS, client certificates, nkeys.

    EventPublisher("agent-service", "tls://nats.example:4222", credentials=NatsCredentials(
        ca_file="ca.pem", cert_file="agent.pem", key_file="agent.key", nkey_seed=seed))

Publishers and gateways alike are given it beside the URL; nats_client.py acts on it.

Source: NATS documentation, "Enabling TLS", "NKeys"; docs/operations.md, "NATS in production".
"""

from __future__ import annotations

import os
import secrets
import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import nkeys

from jarvis_mesh.schema.errors import SetupError


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
