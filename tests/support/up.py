"""`mesh up` and its kin as the processes that users start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.waiting import wait_until

MESH = Path(sys.executable).parent / "mesh"
ANY_PORT = ("--port", "0", "--nats-port", "0")


class MeshUp:
    """A `mesh up` that is up."""

    def __init__(self, process: Process, data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.says: dict[str, Any] = json.loads((data_dir / "up.json").read_text())
        """What up.json holds."""

    @property
    def nats(self) -> psutil.Process:
        """The nats-server that it runs now."""
        return self._servers()[0]

    async def nats_after(self, earlier: psutil.Process) -> psutil.Process:
        """Return the nats-server that replaced *earlier*, once there is one."""
        await wait_until(
            lambda: [server for server in self._servers() if server.pid != earlier.pid],
            "another nats-server",
        )
        return self.nats

    async def end(self, *signals: int) -> tuple[int, str]:
        """Send *signals*, one after the other is handled; return exit code and stderr."""
        for number in signals:
            self.process.send_signal(number)
        _, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, stderr.decode()

    def _servers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


@asynccontextmanager
async def mesh_up(data_dir: Path, *flags: str, **environ: str) -> AsyncIterator[MeshUp]:
    """Run `mesh up` on free ports until it is ready; kill it and all it started afterwards."""
    arguments = ("up", *ANY_PORT, "--no-monitor", "--data-dir", str(data_dir), *flags)
    process = await start_mesh(*arguments, **environ)
    started: list[psutil.Process] = []
    try:
        ready = data_dir / "up.json"
        await wait_until(
            lambda: ready.exists() or process.returncode is not None, "up.json", within=20
        )
        if process.returncode is not None:
            raise AssertionError(f"mesh up ended: {(await process.communicate())[1].decode()}")
        started = psutil.Process(process.pid).children(recursive=True)
        yield MeshUp(process, data_dir)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
        for child in started:
            if child.is_running():
                child.kill()


async def start_mesh(*arguments: str, **environ: str) -> Process:
    """Start the `mesh` command with nothing of our own environment's MESH_*."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("MESH_")}
    return await asyncio.create_subprocess_exec(
        MESH,
        *arguments,
        env={**inherited, **environ},
        stdout=PIPE,
        stderr=PIPE,
        # The tests may run under nohup, which the command would respect.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


async def run_mesh(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run the `mesh` command to its end; return exit code, stdout and stderr."""
    process = await start_mesh(*arguments, **environ)
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


def write_nats_server(folder: Path, script: str) -> str:
    """Write a `nats-server` that runs *script*; return a PATH on which it comes first."""
    folder.mkdir(exist_ok=True)
    program = folder / "nats-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"
