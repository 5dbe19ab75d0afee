"""Certificates of an authority of the test's own, and clients that trust it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Certificates:
    """An authority, and the two files of a gateway.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.renew()

    def renew(self) -> bytes:
        """Write another certificate into the files; return what a client sees of it (DER)."""
        made = self.authority.issue_cert("127.0.0.1", "localhost")
        made.private_key_pem.write_to_path(str(self.key))
        self.cert.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that trusts the authority."""
        return ssl.create_default_context(cafile=str(self.ca))
