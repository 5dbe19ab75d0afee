"""The environment: secrets that may lie in a file, and names that are none of ours.

Light enough for every command: pydantic is only needed where all settings are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from jarvis_mesh.schema.errors import SetupError

PREFIX: Final = "MESH_"
FILE_SUFFIX: Final = "_FILE"
NOT_SETTINGS: Final = (
    "MESH_DATA_DIR",
    "MESH_DEBUG",
    "MESH_NATS_SEEDS",
    "MESH_NATS_SERVER_CA",
    "MESH_NATS_SERVER_CERT",
    "MESH_NATS_SERVER_KEY",
    "MESH_NATS_STORE_DIR",
    "MESH_TOKEN",
    "MESH_TOKEN_FILE",
    "MESH_URL",
)
"""Names that commands and nats.conf read, beside the settings."""
PASSWORD_PREFIX: Final = "MESH_NATS_PASSWORD_"  # noqa: S105 - a name, not a password
NKEY_PREFIX: Final = "MESH_NATS_PUBLIC_NKEY_"


def read_secret(environ: Mapping[str, str], name: str) -> str | None:
    """Return what *name* holds, or the file that *name*`_FILE` names; `None` without either.

    Raises:
        SetupError: both are set, or the file can't be read or is empty.
    """
    value = environ.get(name)
    path = environ.get(name + FILE_SUFFIX)
    if not path:
        return value or None
    if value:
        raise SetupError(f"{name} and {name}{FILE_SUFFIX} are both set: keep one")
    try:
        secret = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{name}{FILE_SUFFIX}: {path} can't be read: {error}") from None
    if not secret:
        raise SetupError(f"{name}{FILE_SUFFIX}: {path} is empty")
    return secret


def unknown_names(environ: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for every `MESH_*` name that nothing reads.

    Args:
        environ: The names in the environment.
        known: Names of the settings; those that aren't settings are known here.
    """
    all_known = (*known, *NOT_SETTINGS)
    return [
        f"{name} is no setting{did_you_mean(name, all_known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in all_known
        and not name.startswith((PASSWORD_PREFIX, NKEY_PREFIX))
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" when one of the *known* names is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
