"""A nats-server as in production: TLS with client certificates, nkeys for all users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from jarvis_mesh.cli.embedded import NatsServer, find_binary
from jarvis_mesh.config.nats_conf import USERS
from jarvis_mesh.config.nats_production import write_production
from jarvis_mesh.schema.nats_credentials import NatsCredentials
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES


class ProductionNats:
    """The directory that `python -m jarvis_mesh.config production` writes, with certificates."""

    def __init__(self, folder: Path, host: str = "localhost") -> None:
        self.folder = folder
        self.ca_file = folder / "tls" / "ca.pem"
        self.certificate = folder / "tls" / "client.pem", folder / "tls" / "client.key"
        self._host = host
        write_production(folder, BUILT_IN_FAMILIES)
        (folder / "tls").mkdir()
        self.renew_authority()
        self.server = NatsServer(
            find_binary(),
            folder / "nats-server.conf",
            folder / "store",
            dict.fromkeys(USERS, "unused"),
            log=folder / "nats-server.log",
        )

    def renew_authority(self) -> None:
        """Replace all certificates by those of a new authority."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        server = authority.issue_cert(self._host)
        server.cert_chain_pems[0].write_to_path(self.folder / "tls" / "server.pem")
        server.private_key_pem.write_to_path(self.folder / "tls" / "server.key")
        self.issue("client", authority)

    @property
    def url(self) -> str:
        """Return the URL for all users."""
        return f"tls://localhost:{self.server.port}"

    def seed_file(self, user: str) -> Path:
        """Return where the seed of a user is."""
        return self.folder / "seeds" / f"{user}.nk"

    def issue(self, name: str, authority: trustme.CA) -> tuple[Path, Path]:
        """Return the files of a new client certificate and its key."""
        issued = authority.issue_cert(f"{name}.example")
        paths = self.folder / "tls" / f"{name}.pem", self.folder / "tls" / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return paths

    def credentials(self, user: str) -> NatsCredentials:
        """Return those of a user."""
        seed = self.seed_file(user).read_text().strip()
        return NatsCredentials(self.ca_file, *self.certificate, nkey_seed=seed)

    def settings(self, user: str) -> dict[str, str]:
        """Return the settings, as variables without MESH_, by which a user gets in."""
        return {
            "NATS_URL": self.url,
            "NATS_CA": str(self.ca_file),
            "NATS_CERT": str(self.certificate[0]),
            "NATS_KEY": str(self.certificate[1]),
            "NATS_NKEY_SEED_FILE": str(self.seed_file(user)),
        }

    def admin_settings(self) -> dict[str, str]:
        """Return what else a gateway needs that makes the log."""
        return {
            "NATS_ADMIN_URL": self.url,
            "NATS_ADMIN_NKEY_SEED_FILE": str(self.seed_file("admin")),
        }


@asynccontextmanager
async def production_nats(folder: Path, host: str = "localhost") -> AsyncIterator[ProductionNats]:
    """Start one whose certificate is for *host*; stop it afterwards."""
    production = ProductionNats(folder, host)
    await production.server.start()
    try:
        yield production
    finally:
        await production.server.stop()
