"""The `mesh` command as users start it: a process, on pipes or in a terminal of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.cli.local import write_up_file
from jarvis_mesh.config.nats_conf import USERS
from jarvis_mesh.publishers.pty_child import ExitStatus, Launch, PtyChild
from jarvis_mesh.schema.clock import SystemClock

MESH = (sys.executable, "-m", "jarvis_mesh.cli.main")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: bytes
    stderr: str


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Return an environment in which only *data_dir* says where the mesh is."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
    return own | {"MESH_DATA_DIR": str(data_dir), "PYTHONWARNINGS": "error"} | more


def announce(server: NatsServer, data_dir: Path) -> None:
    """Write up.json as `mesh up` would."""
    write_up_file(data_dir, "http://127.0.0.1:1", {user: server.url(user) for user in USERS})


@asynccontextmanager
async def start_mesh(
    *arguments: str, env: Mapping[str, str], **options: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start `mesh` on pipes; kill what is left of it."""
    process = await asyncio.create_subprocess_exec(
        *MESH,
        *arguments,
        env=dict(env),
        stdin=options.pop("stdin", asyncio.subprocess.DEVNULL),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **options,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def mesh(
    *arguments: str, env: Mapping[str, str], stdin: bytes | None = None, **options: Any
) -> Ended:
    """Run `mesh` to its end, with *stdin* in a pipe, or with none."""
    if stdin is not None:
        options["stdin"] = asyncio.subprocess.PIPE
    async with start_mesh(*arguments, env=env, **options) as process:
        stdout, stderr = await process.communicate(stdin)
        return Ended(process.returncode or 0, stdout, stderr.decode())


class TypedInto:
    """`mesh` in a terminal that the test types into."""

    def __init__(self, *arguments: str, env: Mapping[str, str]) -> None:
        self.shown = bytearray()
        self.child = PtyChild(Launch([*MESH, *arguments], env=env, columns=100, rows=30))

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self.child.fd, self._read)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self.child.fd)
        self.child.close()

    def type(self, keys: bytes) -> None:
        """Type a few *keys*."""
        os.write(self.child.fd, keys)

    async def ended(self) -> ExitStatus:
        """Return how it ended."""
        return await self.child.wait(SystemClock())

    def _read(self) -> None:
        try:
            self.shown += os.read(self.child.fd, 65_536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self.child.fd)
