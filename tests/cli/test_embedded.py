"""The nats-server child: its end, what it leaves, its log, its restarts."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from jarvis_mesh.cli import leftovers
from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.cli.leftovers import end_leftovers, store_flag
from jarvis_mesh.cli.supervisor import cut_back, keep_running
from jarvis_mesh.config.nats_conf import USERS, conf_path
from jarvis_mesh.schema.clock import SystemClock
from jarvis_mesh.schema.errors import SetupError
from tests.support.waiting import wait_until


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    passwords = {user: new_password() for user in USERS}
    made = NatsServer(
        find_binary(), conf_path(), tmp_path / "store", passwords, log=tmp_path / "log"
    )
    await made.start()
    yield made
    hurry = asyncio.Event()
    hurry.set()
    await made.stop(hurry)


async def test_stop_ends_it_and_may_be_called_again(server: NatsServer) -> None:
    process = psutil.Process(server.pid)
    await server.stop()
    assert not process.is_running()
    await server.stop()
    assert "Server Exiting" in server.last_words()


async def test_stop_kills_one_that_hangs_once_it_is_hurried(server: NatsServer) -> None:
    process = psutil.Process(server.pid)
    process.suspend()
    hurry = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(server.stop(hurry))
        await asyncio.wait({stopping}, timeout=0.05)
        assert not stopping.done()
        hurry.set()
    assert not process.is_running()


async def test_stop_kills_one_that_hangs_when_it_is_cancelled(server: NatsServer) -> None:
    process = psutil.Process(server.pid)
    process.suspend()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await server.stop()
    assert not process.is_running()


async def test_a_start_after_its_end_keeps_the_port(server: NatsServer) -> None:
    port = server.port
    server.kill()
    assert await server.wait() == -signal.SIGKILL
    await server.start()
    assert server.port == port


async def test_a_program_that_cant_be_run_is_said(tmp_path: Path) -> None:
    missing = NatsServer(
        tmp_path / "none", conf_path(), tmp_path / "store", dict.fromkeys(USERS, "x")
    )
    with pytest.raises(SetupError, match="can't be started"):
        await missing.start()


async def test_leftovers_on_the_store_are_ended_even_if_they_resist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.2)
    resist = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); signal.pause()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", resist, store_flag(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        assert await end_leftovers(tmp_path / "another", SystemClock()) == 0
        assert await end_leftovers(tmp_path, SystemClock()) == 1
        await process.communicate()  # closes its pipe too
        assert process.returncode == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()


async def test_deaths_after_a_steady_life_are_not_added_up(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_mesh.cli.supervisor.STEADY", 0.0)  # every life is a steady one
    monkeypatch.setattr("jarvis_mesh.cli.supervisor.BACKOFF", 0.0)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(keep_running(server, SystemClock()))
        for _ in range(7):
            pid = server.pid
            server.kill()
            await wait_until(lambda pid=pid: server.pid != pid, "a restart")
        assert not keeping.done()
        keeping.cancel()


async def test_giving_up_says_where_the_servers_log_is_and_what_to_do(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_mesh.cli.supervisor.GIVE_UP_AFTER", 1)
    server.log = tmp_path / "nats-server.log"
    server.log.write_text("[FTL] the disk is broken\n")
    server.kill()
    with pytest.raises(SetupError) as caught:
        await keep_running(server, SystemClock())
    assert caught.value.message == (
        "nats-server ended 1 times in a row (code -9); "
        f"it said: [FTL] the disk is broken; mend what {server.log} says is wrong, "
        "then start again"
    )


def test_a_log_that_grew_is_cut_back_while_somebody_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as file:
        file.write(b"old" * 10)
        cut_back(path, max_bytes=30)
        assert path.stat().st_size == 30
        file.write(b"!")
        cut_back(path, max_bytes=30)
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "log.1").read_bytes() == b"old" * 10 + b"!"
    cut_back(tmp_path / "none")
