"""DATA_DIR: passwords, nats.conf, room for the log, the lock."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jarvis_mesh.cli.data_dir import DataDir, open_data_dir
from jarvis_mesh.config.nats_conf import USERS, conf_path, render
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


def free_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    def usage(_path: Any) -> DiskUsage:
        return DiskUsage(0, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_it_is_locked_while_it_is_open(tmp_path: Path) -> None:
    def open_once_more() -> None:
        with open_data_dir(tmp_path):
            pass

    with open_data_dir(tmp_path), pytest.raises(SetupError, match="another `mesh up`"):
        open_once_more()
    open_once_more()


def test_an_up_json_that_was_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "up.json").touch()
    with open_data_dir(tmp_path):
        assert not (tmp_path / "up.json").exists()


def test_an_existing_directory_keeps_its_mode_but_the_store_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with open_data_dir(tmp_path) as data_dir:
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
        assert stat.S_IMODE(data_dir.store.stat().st_mode) == 0o700


def test_passwords_are_made_once_and_added_for_new_users(tmp_path: Path) -> None:
    first = DataDir(tmp_path).passwords()
    assert set(first) == set(USERS)
    assert len(set(first.values())) == len(USERS)
    file = tmp_path / "passwords.json"
    file.write_text('{"admin": "Old-one"}')
    second = DataDir(tmp_path).passwords()
    assert second["admin"] == "Old-one"
    assert set(second) == set(USERS)
    assert DataDir(tmp_path).passwords() == second


def test_nats_conf_is_the_packaged_one_unless_families_differ(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    assert data_dir.nats_conf(BUILT_IN_FAMILIES) == conf_path()
    own = data_dir.nats_conf(("agent", "deploy"))
    assert own.read_text() == render(("agent", "deploy"))


def test_the_log_gets_half_of_what_is_free_or_its_own_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = DataDir(tmp_path)
    data_dir.store.mkdir()
    (data_dir.store / "block").write_bytes(bytes(4 * 2**20))
    free_disk(monkeypatch, 2**30)
    room = data_dir.room_for_log()
    assert (2**30 + 4 * 2**20) // 2 <= room <= (2**30 + 5 * 2**20) // 2


def test_a_disk_as_good_as_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_disk(monkeypatch, 3 * 2**20)
    with pytest.raises(SetupError, match="only 3 MiB free: make room"):
        DataDir(tmp_path).room_for_log()
