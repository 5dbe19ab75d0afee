"""What `mesh up` says when it can't: one line that says what to do, exit code 1."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.up import ANY_PORT, mesh_up, run_mesh, write_nats_server


async def refusal(data_dir: Path, *flags: str, **environ: str) -> str:
    """Return the one line that `mesh up` says before it ends with exit code 1."""
    code, stdout, stderr = await run_mesh("up", "--data-dir", str(data_dir), *flags, **environ)
    assert (code, stdout) == (1, ""), stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("mesh: ")
    return lines[0]


async def test_taken_ports_are_named_with_the_flags_that_choose_others(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line = await refusal(tmp_path, "--port", port, "--nats-port", "0")
        assert f"port {port} is taken" in line
        assert line.endswith("--port")
        line = await refusal(tmp_path, "--port", "0", "--nats-port", port)
        assert f"port {port} is taken" in line
        assert line.endswith("--nats-port")
    assert not (tmp_path / "nats-server.log").exists()


async def test_a_data_dir_in_use_is_refused_and_its_user_goes_on(tmp_path: Path) -> None:
    async with mesh_up(tmp_path) as up:
        line = await refusal(tmp_path, *ANY_PORT)
        assert f"another `mesh up` uses {tmp_path}" in line
        assert up.process.returncode is None
        assert (tmp_path / "up.json").exists()


async def test_an_empty_data_dir_is_refused_and_nothing_written_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, stderr = await run_mesh("up", "--data-dir", "", *ANY_PORT)
    assert (code, stderr) == (
        1,
        "mesh: --data-dir is empty: name a directory, or leave it out\n",
    )
    assert not os.listdir(tmp_path)


async def test_a_data_dir_that_cant_be_made_is_refused(tmp_path: Path) -> None:
    # A file in the way stops root too, unlike permissions.
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        line = await refusal(path, *ANY_PORT)
        assert f"{path} can't be written to" in line
        assert "--data-dir" in line


async def test_a_file_system_that_cant_be_written_to_is_refused() -> None:
    line = await refusal(Path("/proc/jarvis-mesh"), *ANY_PORT)
    assert "can't be written to" in line


async def test_damaged_passwords_are_refused(tmp_path: Path) -> None:
    (tmp_path / "passwords.json").write_text('{"admin": 5')
    assert "passwords.json is damaged: remove it" in await refusal(tmp_path, *ANY_PORT)


async def test_a_nats_server_that_is_too_old_is_refused(tmp_path: Path) -> None:
    path = write_nats_server(tmp_path / "bin", "echo nats-server: v2.10.24")
    line = await refusal(tmp_path / "data", *ANY_PORT, PATH=path)
    assert "v2.10.24" in line
    assert "2.11 or newer" in line


async def test_what_is_no_nats_server_is_refused(tmp_path: Path) -> None:
    path = write_nats_server(tmp_path / "bin", "echo hello")
    line = await refusal(tmp_path / "data", *ANY_PORT, PATH=path)
    assert "is no nats-server" in line


async def test_a_nats_server_that_cant_start_is_quoted(tmp_path: Path) -> None:
    path = write_nats_server(
        tmp_path / "bin", '[ "$1" = --version ] && echo v2.11.0 || { echo no way; exit 7; }'
    )
    line = await refusal(tmp_path / "data", *ANY_PORT, PATH=path)
    assert "code 7" in line
    assert "it said: no way" in line
    assert str(tmp_path / "data" / "nats-server.log") in line


async def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    line = await refusal(tmp_path, *ANY_PORT, MESH_DRAIN="soon")
    assert "MESH_DRAIN is 'soon'" in line
