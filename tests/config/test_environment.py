"""Secrets in files, and names that are none of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from jarvis_mesh.config.environment import read_secret, unknown_names
from jarvis_mesh.schema.errors import SetupError


def test_a_secret_comes_from_the_variable_or_the_file_it_names(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-file\n")
    assert read_secret({"MESH_X": "plain"}, "MESH_X") == "plain"
    assert read_secret({"MESH_X_FILE": str(file)}, "MESH_X") == "from-file"
    assert read_secret({"MESH_X": "", "MESH_X_FILE": ""}, "MESH_X") is None


def test_a_secret_given_twice_or_in_no_readable_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for environ, reason in [
        ({"MESH_X": "a", "MESH_X_FILE": "b"}, "both set"),
        ({"MESH_X_FILE": str(tmp_path / "none")}, "can't be read"),
        ({"MESH_X_FILE": str(empty)}, "is empty"),
    ]:
        with pytest.raises(SetupError, match=reason):
            read_secret(environ, "MESH_X")


def test_unknown_names_are_told_with_the_near_one() -> None:
    environ = ["MESH_PROT", "MESH_URL", "MESH_NATS_PASSWORD_ADMIN", "MESH_DATA_DIR", "PATH"]
    assert unknown_names(environ, ["MESH_PORT"]) == [
        "MESH_PROT is no setting; did you mean MESH_PORT?"
    ]
