"""The certificate that the gateway shows over TLS, read anew when its files change.

A renewed certificate makes a new context, which new connections get; those there are keep theirs.
Loading it into the old one would leave that with half a pair where certificate and key don't
belong together, as between the two writes of a renewal.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import structlog

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.config.settings_sources import variable
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import SetupError

LOOK_EVERY: Final = 10.0
"""Seconds between two looks at the files."""
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone; TLS 1.3 has nothing else."""
_PARTS: Final = {"tls_cert": "-----BEGIN CERTIFICATE-----", "tls_key": "PRIVATE KEY-----"}
"""What each file holds, at least."""

Signature = tuple[tuple[int, int, int], ...]

log = structlog.get_logger(__name__)


class Certificate:
    """A certificate with its chain, and its key.

    Args:
        cert: PEM, the gateway's own first, then those that lead to one that clients know.
        key: PEM, not encrypted.

    Raises:
        SetupError: a file can't be read, or the two aren't what they should be.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = {"tls_cert": cert, "tls_key": key}
        self._seen = self._signature()
        self.context = self._load()
        """For the next connection."""

    async def watch(self, clock: Clock) -> None:
        """Look at the files now and then, until cancelled."""
        while True:
            await clock.sleep(LOOK_EVERY)
            self.renew()

    def renew(self) -> None:
        """Have new connections get what the files hold now, if they changed and it is usable."""
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature  # of what is broken too: it is said once
        try:
            self.context = self._load()
        except SetupError as error:
            log.warning("the certificate stays the old one", error=error.message)
        else:
            log.info("a new certificate", file=str(self._files["tls_cert"]))

    def _signature(self) -> Signature | None:
        """Return what tells other contents; `None` while a file is missing."""
        try:
            found = [path.stat() for path in self._files.values()]
        except OSError:
            return None
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)

    def _load(self) -> ssl.SSLContext:
        for name, path in self._files.items():
            _check(name, path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        cert, key = self._files.values()
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(cert, key, password=_refuse)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise SetupError(
                    f"the key in {key} isn't that of the certificate in {cert}"
                ) from None
            reason = error.reason or str(error)
            raise SetupError(f"{cert} and {key} can't be used for TLS: {reason}") from None
        except OSError as error:  # removed between two looks at it
            raise SetupError(f"{cert} or {key} can't be read: {error.strerror}") from None
        return context


def open_certificate(settings: Settings) -> Certificate | None:
    """Return the certificate of the settings; `None` without one.

    Raises:
        SetupError: it can't be used, or half of it is missing.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, missing = ("tls_key", "tls_cert") if cert is None else ("tls_cert", "tls_key")
        raise SetupError(
            f"{variable(given)} needs {variable(missing)} beside it: "
            "TLS takes a certificate and its key"
        )
    return Certificate(cert, key)


def _check(name: str, path: Path) -> None:
    try:
        text = path.read_text()
    except OSError as error:
        raise SetupError(f"{variable(name)}: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""  # DER, say
    if _PARTS[name] not in text:
        what = "certificate" if name == "tls_cert" else "private key"
        raise SetupError(f"{variable(name)}: {path} holds no {what} in PEM form")
    if name == "tls_key" and "ENCRYPTED" in text:
        _refuse()


def _refuse() -> str:
    raise SetupError(
        "the key for TLS is encrypted: decrypt it (openssl pkey -in KEY -out PLAIN, mode 0600)"
    )
