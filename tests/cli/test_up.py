"""`mesh up` from outside: what starts, what survives, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat
import urllib.request
from pathlib import Path

import nats
import psutil
import pytest
from ptyprocess import PtyProcess

from jarvis_mesh.cli.embedded import find_binary
from jarvis_mesh.config.nats_conf import USERS
from tests.support.up import (
    ANY_PORT,
    MESH,
    MeshUp,
    mesh_up,
    run_mesh,
    start_mesh,
    write_nats_server,
)
from tests.support.waiting import wait_until


async def publish(up: MeshUp, subject: str = "agent.created._.cli._._._") -> int:
    """Publish one message as the admin; return its sequence."""
    connection = await nats.connect(up.says["nats"]["admin"])
    try:
        return (await connection.jetstream().publish(subject, b"x")).seq
    finally:
        await connection.close()


async def test_up_json_says_where_everything_is_to_this_user_alone(tmp_path: Path) -> None:
    async with mesh_up(tmp_path / "data") as up:
        with await asyncio.to_thread(
            urllib.request.urlopen, f"{up.says['gateway']}/readyz"
        ) as answer:
            assert answer.status == 200
        assert set(up.says["nats"]) == set(USERS)
        for url in up.says["nats"].values():
            await (await nats.connect(url)).close()
        private = [up.data_dir / name for name in ("up.json", "passwords.json", "nats-server.log")]
        assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
        assert stat.S_IMODE(up.data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_all_of_it(tmp_path: Path, number: signal.Signals) -> None:
    async with mesh_up(tmp_path, "--monitor") as up:
        server = up.nats
        code, stderr = await up.end(number)
        assert code == 0
        assert "Traceback" not in stderr
        assert not server.is_running()
        assert not (tmp_path / "up.json").exists()


def test_ctrl_c_in_a_terminal_stops_it_in_order(tmp_path: Path) -> None:
    # The terminal sends the signal to the whole group, of which nats-server must be no part.
    terminal = PtyProcess.spawn([str(MESH), "up", *ANY_PORT, "--data-dir", str(tmp_path)])
    try:
        shown = b""
        while b"mesh run" not in shown:
            shown += terminal.read()
        terminal.write(b"\x03")
        with contextlib.suppress(EOFError):
            while True:
                shown += terminal.read()
        assert terminal.wait() == 0
        assert b"Traceback" not in shown
        assert (tmp_path / "nats-server.log").read_text().rstrip().endswith("Server Exiting..")
    finally:
        terminal.close(force=True)


async def test_a_second_start_has_the_history_and_the_passwords_of_the_first(
    tmp_path: Path,
) -> None:
    async with mesh_up(tmp_path) as up:
        first = await publish(up)
        passwords = (tmp_path / "passwords.json").read_text()
        await up.end(signal.SIGTERM)
    async with mesh_up(tmp_path) as up:
        assert await publish(up) > first
        assert (tmp_path / "passwords.json").read_text() == passwords


async def test_a_nats_server_that_died_is_started_again_with_its_history(tmp_path: Path) -> None:
    async with mesh_up(tmp_path) as up:
        first = await publish(up)
        server = up.nats
        server.kill()
        again = await up.nats_after(server)
        assert await publish(up) > first  # at the same address, by the same password
        code, stderr = await up.end(signal.SIGTERM)
        assert code == 0
        assert "starting it again" in stderr
        assert not again.is_running()


async def test_a_nats_server_that_keeps_dying_is_given_up_in_one_line(tmp_path: Path) -> None:
    once = tmp_path / "once"
    path = write_nats_server(
        tmp_path / "bin",
        f'[ "$1" = --version ] || ! [ -e {once} ] || {{ echo broken for good; exit 3; }}\n'
        f'[ "$1" = --version ] || touch {once}\nexec {find_binary()} "$@"',
    )
    async with mesh_up(tmp_path / "data", PATH=path) as up:
        up.nats.kill()
        code, stderr = await up.end()
        assert code == 1
        last = stderr.splitlines()[-1]
        assert last.startswith("mesh: nats-server ended 5 times in a row (code 3)")
        assert "broken for good" in last
        assert f"mend what {tmp_path / 'data' / 'nats-server.log'} says is wrong" in last
        assert not (tmp_path / "data" / "up.json").exists()


async def test_nothing_is_left_of_a_nats_server_that_hangs_when_hurried(tmp_path: Path) -> None:
    async with mesh_up(tmp_path) as up:
        server = up.nats
        server.suspend()
        up.process.send_signal(signal.SIGINT)
        await wait_until(lambda: not (tmp_path / "up.json").exists(), "the first signal's effect")
        code, _ = await up.end(signal.SIGINT)
        assert code == 0
        assert not server.is_running()


async def test_nothing_is_left_when_the_start_is_interrupted(tmp_path: Path) -> None:
    path = write_nats_server(
        tmp_path / "bin",
        f'[ "$1" = --version ] && exec {find_binary()} --version\n'
        f"echo $$ >{tmp_path}/pid; exec sleep 60",
    )
    process = await start_mesh(
        *("up", "--port", "0", "--nats-port", "0", "--data-dir", str(tmp_path)), PATH=path
    )
    try:
        pid_file = tmp_path / "pid"
        await wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the fake server")
        server = psutil.Process(int(pid_file.read_text()))
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
        assert not server.is_running()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_when_it_is_killed_its_nats_server_ends_and_the_next_start_copes(
    tmp_path: Path,
) -> None:
    async with mesh_up(tmp_path) as up:
        first = await publish(up)
        server = up.nats
        await up.end(signal.SIGKILL)
        await wait_until(lambda: not server.is_running(), "the end of the orphan")
    (tmp_path / "up.json").unlink()  # so that `mesh_up` waits for the new one
    async with mesh_up(tmp_path) as up:
        assert await publish(up) > first


async def test_other_families_are_stored_and_allowed(tmp_path: Path) -> None:
    async with mesh_up(tmp_path, "--monitor", MESH_FAMILIES="agent,deploy") as up:
        assert await publish(up, "deploy.started._.cli._._._") > 0


async def test_the_greeting_names_the_next_commands(tmp_path: Path) -> None:
    async with mesh_up(tmp_path) as up:
        up.process.terminate()
        stdout, stderr = await up.process.communicate()
        assert f"jarvis-mesh is up: {up.says['gateway']}" in stdout.decode()
        assert "mesh sub all" in stdout.decode()
        assert f"export MESH_DATA_DIR={tmp_path}" in stdout.decode()
        secrets = [url.split(":")[2].split("@")[0] for url in up.says["nats"].values()]
        said = (stdout + stderr + (tmp_path / "nats-server.log").read_bytes()).decode()
        assert not [secret for secret in secrets if secret in said]


async def test_the_system_monitor_publishes(tmp_path: Path) -> None:
    async with mesh_up(tmp_path, "--monitor") as up:
        connection = await nats.connect(up.says["nats"]["admin"])
        try:
            stream = connection.jetstream()
            seen = await stream.subscribe(
                "system.metrics.>", stream="EVENTS", ordered_consumer=True
            )
            message = await seen.next_msg(timeout=10)
            assert message.subject.startswith("system.metrics._.system-monitor.")
        finally:
            await connection.close()


async def test_a_host_that_lets_others_in_wants_insecure(tmp_path: Path) -> None:
    code, _, stderr = await run_mesh(
        *("up", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))  # noqa: S104
    )
    assert code == 1
    assert "--insecure" in stderr
