"""NATS in production: TLS with client certificates, and an nkey for every user.

`config/nats/` has both files for whoever sets paths and public keys in the environment, as in a
container; `write_production` makes a directory of one's own, with new keys:

    nats-server.conf   written once, then its operator's own
    users.conf         who may do what; written anew each time, with public keys alone
    logins.json        the public key of each user, or the bcrypt hash of a password instead
    seeds/<user>.nk    the new secrets (mode 0600): take each to where it is used

Source: docs/operations.md, "NATS in production".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from jarvis_mesh.config.environment import NKEY_PREFIX
from jarvis_mesh.config.nats_conf import USERS, authorization
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import new_nkey_seed, public_nkey

_LOGIN: Final = re.compile(r"U[A-Z2-7]{55}|\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
"""A user's public nkey, or a bcrypt hash."""
_PLACES: Final = {
    "MESH_NATS_SERVER_CERT": "tls/server.pem",
    "MESH_NATS_SERVER_KEY": "tls/server.key",
    "MESH_NATS_SERVER_CA": "tls/ca.pem",
    "MESH_NATS_STORE_DIR": "store",
}
"""What `config/nats/nats-server.conf` takes from the environment, and where it is otherwise."""

_SERVER: Final = """\
# The NATS server of jarvis-mesh in production: one node, TLS, client certificates.
# Written by config/nats_production.py. docs/operations.md, "NATS in production", says how to
# use it.

listen: "0.0.0.0:4222"
max_payload: 1MB
max_connections: 4096
max_subscriptions: 100000

# A gateway that is slow for a moment must not slow publishers down; what it then misses it
# reads from the log.
no_fast_producer_stall: true

# Nobody gets as far as a password or an nkey without a certificate of this authority.
tls: {
  cert_file: $MESH_NATS_SERVER_CERT
  key_file: $MESH_NATS_SERVER_KEY
  ca_file: $MESH_NATS_SERVER_CA
  verify: true
  timeout: 5
}

jetstream: {
  store_dir: $MESH_NATS_STORE_DIR
  # The log's own limit decides (MESH_LOG_MAX_BYTES): keep that much of the disk free.
  max_file_store: 1PB
}

# Monitoring tells who is connected, and asks nobody for a password: for this machine alone.
# http: "127.0.0.1:8222"

include "users.conf"
"""


def public_nkey_variable(user: str) -> str:
    """Return the environment variable that holds the public nkey of a NATS user."""
    return f"{NKEY_PREFIX}{user.replace('-', '_').upper()}"


def render_server(places: Path | None = None) -> str:
    """Return the text of nats-server.conf.

    Args:
        places: The directory with certificates and store; the environment's when `None`.
    """
    text = _SERVER
    if places is not None:
        for variable, path in _PLACES.items():
            text = text.replace(f"${variable}", json.dumps(str(places / path)))
    return text


def render_users(families: Iterable[str]) -> str:
    """Return the text of users.conf with public nkeys from the environment."""
    return _users(families, lambda user: f"nkey: ${public_nkey_variable(user)}")


def write_production(
    directory: Path, families: Iterable[str], renew: Collection[str] = ()
) -> list[Path]:
    """Write, or bring up to date, the configuration of a server; return the new seeds' files.

    Args:
        directory: Made if need be.
        renew: Users that get a new nkey although they have one.

    Raises:
        SetupError: the directory can't be written to, logins.json isn't what it should be, or
            there is no such user.
    """
    if unknown := sorted(set(renew) - set(USERS)):
        raise SetupError(f"no NATS user {unknown[0]!r}: there are {', '.join(USERS)}")
    try:
        (directory / "seeds").mkdir(mode=0o700, parents=True, exist_ok=True)
        logins = _read_logins(directory / "logins.json")
        seeds = {user: new_nkey_seed() for user in USERS if user in renew or user not in logins}
        logins |= {user: public_nkey(seed) for user, seed in seeds.items()}
        # The secrets first: a public key without its seed would lock its user out.
        written = [_write_seed(directory / "seeds" / f"{user}.nk", seeds[user]) for user in seeds]
        (directory / "logins.json").write_text(json.dumps(logins, indent=2) + "\n")
        (directory / "users.conf").write_text(_users(families, lambda user: _login(user, logins)))
        server = directory / "nats-server.conf"
        if not server.exists():
            server.write_text(render_server(directory.absolute()))
    except OSError as error:
        raise SetupError(f"{error.filename or directory} can't be written: {error}") from None
    return written


def _users(families: Iterable[str], login: Callable[[str], str]) -> str:
    return (
        "# The NATS users of jarvis-mesh and what each may do.\n"
        "# Written by config/nats_production.py; change that, not this.\n\n"
        + authorization(tuple(families), login)
    )


def _login(user: str, logins: dict[str, str]) -> str:
    login = logins[user]
    return f"nkey: {login} # {user}" if login[0] == "U" else f'user: {user}, password: "{login}"'


def _read_logins(path: Path) -> dict[str, str]:
    try:
        logins = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        logins = None
    if not isinstance(logins, dict) or not all(
        isinstance(login, str) and _LOGIN.fullmatch(login) for login in logins.values()
    ):
        raise SetupError(
            f"{path} is damaged: it has a public nkey (U…) or a bcrypt hash ($2a$…) for each user"
        )
    return {user: login for user, login in logins.items() if user in USERS}


def _write_seed(path: Path, seed: str) -> Path:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{seed}\n")
    return path
