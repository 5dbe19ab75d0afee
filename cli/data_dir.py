"""DATA_DIR as one `mesh up` has it to itself: locked, private, with room for the log.

lock  passwords.json  up.json  nats.conf (other families only)  nats-server.log  nats/ (store)
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jarvis_mesh.cli.embedded import new_password
from jarvis_mesh.cli.local import remove_up_file, write_private
from jarvis_mesh.config.nats_conf import USERS, conf_path, render
from jarvis_mesh.config.units import format_bytes
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES

MIN_FREE_BYTES: Final = 16 * 1024**2
"""Less free disk than this and the log would stop within minutes."""
_BLOCK: Final = 512
"""Bytes of a block in `st_blocks`, whatever the file system's own are."""


class DataDir:
    """The directory. Opened by `open_data_dir`, which holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "nats"
        """Where JetStream keeps the log."""
        self.nats_log = path / "nats-server.log"

    def passwords(self) -> dict[str, str]:
        """Return the password of every NATS user: made once, then always the same."""
        path = self.path / "passwords.json"
        kept = _read_passwords(path)
        passwords = {user: kept.get(user) or new_password() for user in USERS}
        if passwords != kept:
            write_private(path, json.dumps(passwords, indent=2))
        return passwords

    def nats_conf(self, families: tuple[str, ...]) -> Path:
        """Return the nats.conf for these families: the packaged one if they are the usual."""
        if families == BUILT_IN_FAMILIES:
            return conf_path()
        path = self.path / "nats.conf"
        write_private(path, render(families))
        return path

    def room_for_log(self) -> int:
        """Return how many bytes the log may have: half of what is free or its own already.

        Raises:
            SetupError: the disk is as good as full.
        """
        free = shutil.disk_usage(self.path).free
        if free < MIN_FREE_BYTES:
            raise SetupError(
                f"{self.path} is on a disk with only {format_bytes(free)} free: make room, "
                "or choose another with --data-dir"
            )
        return (free + _bytes_used(self.store)) // 2


@contextmanager
def open_data_dir(path: Path) -> Iterator[DataDir]:
    """Lock DATA_DIR, made if need be, for this process alone, and unlock it afterwards.

    Raises:
        SetupError: it can't be made or written to, or another `mesh up` has it.
    """
    with writing_to(path):
        # An existing directory keeps its mode (it may be anything, such as /tmp): what is
        # private in it is private by itself.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                f"another `mesh up` uses {path}: stop it, or choose another with --data-dir"
            ) from None
        with writing_to(path):
            (path / "nats").mkdir(mode=0o700, exist_ok=True)
            remove_up_file(path)  # left by one that was killed
        yield DataDir(path)
    finally:
        os.close(lock)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an `OSError` within into the one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupError(
            f"{path} can't be written to ({reason}: {error.filename or path}); "
            "mend that, or choose another with --data-dir"
        ) from None


def _read_passwords(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or not all(isinstance(word, str) for word in kept.values()):
        raise SetupError(f"{path} is damaged: remove it, and new passwords are made")
    return kept


def _bytes_used(path: Path) -> int:
    used = 0
    for folder, _, names in os.walk(path):
        for name in names:
            used += os.lstat(os.path.join(folder, name)).st_blocks * _BLOCK
    return used
