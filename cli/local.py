"""Where the commands on one machine find each other: DATA_DIR and its `up.json`.

    {"gateway": "http://127.0.0.1:3200", "nats": {"admin": "nats://admin:…@…", "gateway": …}}

`mesh up` writes it once everything is ready and removes it when it stops.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

from jarvis_mesh.config.environment import FILE_SUFFIX, read_secret
from jarvis_mesh.config.nats_conf import ADMIN
from jarvis_mesh.config.nats_url import check_nats_urls
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

DEFAULT_GATEWAY: Final = "http://127.0.0.1:3200"
_UP_FILE: Final = "up.json"
_NATS_URL: Final = "MESH_NATS_URL"
_TOKEN: Final = "MESH_TOKEN"  # noqa: S105 - a name, not a token
_NKEY_SEED: Final = "MESH_NATS_NKEY_SEED"
_SEEDS: Final = "MESH_NATS_SEEDS"


def data_dir_path(given: str | None = None) -> Path:
    """Return DATA_DIR: *given*, else $MESH_DATA_DIR, else jarvis-mesh where XDG keeps data.

    Raises:
        SetupError: *given* is empty, as `--data-dir "$UNSET"` is; as a path that'd be `.`.

    Source: XDG Base Directory Specification.
    """
    if given == "":
        raise SetupError("--data-dir is empty: name a directory, or leave it out")
    if given is not None:
        return Path(given).expanduser().absolute()
    if own := os.environ.get("MESH_DATA_DIR"):
        return Path(own).expanduser().absolute()
    xdg = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(xdg).expanduser().absolute() / "jarvis-mesh"


def nats_url(user: str, given: str | None = None) -> str:
    """Return the URL by which a command connects to NATS as *user*. It holds a password.

    Args:
        user: The NATS user, which picks the entry of up.json.
        given: The flag `--nats`; it, and MESH_NATS_URL, name the user themselves.

    Raises:
        SetupError: nothing says where NATS is, or what does isn't a NATS URL.
    """
    if found := given or read_secret(os.environ, _NATS_URL):
        try:
            check_nats_urls(found)
        except ValueError as error:
            variable = _NATS_URL if os.environ.get(_NATS_URL) else _NATS_URL + FILE_SUFFIX
            raise SetupError(f"{'--nats' if given else variable}: {error}") from None
        return found
    urls = _read_up_file().get("nats")
    if not isinstance(urls, Mapping):
        raise SetupError("no NATS found: start `mesh up`, or name one by --nats or MESH_NATS_URL")
    url = urls.get(user)
    if not isinstance(url, str):
        raise SetupError(f"{_up_file()} has no NATS user {user!r}: restart `mesh up`")
    return url


def nats_credentials(user: str, given: str | None = None) -> NatsCredentials:
    """Return what secures the connection to where `nats_url` says, beside that URL.

    What `mesh up` starts needs nothing, so the environment counts with a URL of one's own alone.

    Args:
        user: The NATS user, which picks the file in the folder of seeds.
        given: The flag `--nats`; a password in it goes before an nkey of the environment.

    Raises:
        SetupError: half of a certificate is missing, or a seed is wrong or can't be read.
    """
    environ = os.environ
    if not (given or environ.get(_NATS_URL) or environ.get(_NATS_URL + FILE_SUFFIX)):
        return NO_CREDENTIALS
    has_password = given is not None and any(urlsplit(url).password for url in given.split(","))
    ca_file, cert_file, key_file = (
        environ.get(f"MESH_NATS_{name}") or None for name in ("CA", "CERT", "KEY")
    )
    seed = None if has_password else read_secret(environ, _NKEY_SEED) or _seed_of(user)
    return NatsCredentials(ca_file, cert_file, key_file, nkey_seed=seed)


def admin_access(given: str | None = None) -> tuple[str, NatsCredentials]:
    """Return the URL by which a command connects to NATS as `admin`, and what secures it.

    Args:
        given: The flag `--nats`. Without it MESH_NATS_ADMIN_URL counts, as it does for a gateway.

    Raises:
        SetupError: as `nats_url` and `nats_credentials`.
    """
    url = given or read_secret(os.environ, "MESH_NATS_ADMIN_URL")
    credentials = nats_credentials(ADMIN, url)
    if given is None and (seed := read_secret(os.environ, "MESH_NATS_ADMIN_NKEY_SEED")):
        credentials = replace(credentials, nkey_seed=seed)
    return nats_url(ADMIN, url), credentials


def seeds_folder() -> Path | None:
    """Return the folder with a file `<user>.nk` for each NATS user that this machine may be."""
    folder = os.environ.get(_SEEDS)
    return Path(folder).expanduser() if folder else None


def _seed_of(user: str) -> str | None:
    folder = seeds_folder()
    if folder is None:
        return None
    path = folder / f"{user}.nk"
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{_SEEDS}: {path} can't be read: {error}") from None


def gateway_url(given: str | None = None) -> str:
    """Return the gateway's URL: *given*, $MESH_URL, that of up.json, or the default one."""
    if found := given or os.environ.get("MESH_URL"):
        return found
    url = _read_up_file().get("gateway")
    return url if isinstance(url, str) else DEFAULT_GATEWAY


def gateway_token(given: str | None = None) -> str | None:
    """Return what the gateway is shown: *given*, $MESH_TOKEN, or what $MESH_TOKEN_FILE holds.

    Raises:
        SetupError: both variables are set, or the file can't be read or is empty.
    """
    return read_secret(os.environ, _TOKEN) if given is None else given


def write_up_file(data_dir: Path, gateway: str, nats: Mapping[str, str]) -> None:
    """Say where everything is, whole or not at all, to this user alone.

    Raises:
        OSError: it can't be written.
    """
    write_private(data_dir / _UP_FILE, json.dumps({"gateway": gateway, "nats": dict(nats)}))


def remove_up_file(data_dir: Path) -> None:
    """Say no longer where everything is. Idempotent."""
    (data_dir / _UP_FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace *path* by a file with *text* that only this user can read (mode 0600).

    Raises:
        OSError: it can't be written; what was there stays.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _up_file() -> Path:
    return data_dir_path() / _UP_FILE


def _read_up_file() -> Mapping[str, object]:
    path = _up_file()
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} can't be read: {error}; restart `mesh up`") from None
    if not isinstance(content, dict):
        raise SetupError(f"{path} isn't what `mesh up` writes: restart it")
    return cast("dict[str, object]", content)
