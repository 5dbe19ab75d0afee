"""A gateway as operators run it: a process of its own, which can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from jarvis_mesh.cli.leftovers import end_with_parent
from jarvis_mesh.schema import SystemClock
from tests.support.ports import free_port

STOP_WITHIN = 15.0
"""Seconds that a gateway may take to end when it is asked to; draining takes two."""
READY_WITHIN = 30.0
_CLOCK = SystemClock()


class GatewayProcess:
    """`mesh gateway`, on a port that it keeps.

    Args:
        settings: MESH_* variables without that prefix.
        log: The file that its output is appended to.
    """

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self._is_tls = "TLS_CERT" in settings
        self.url = f"{'https' if self._is_tls else 'http'}://127.0.0.1:{self.port}"
        self._environment = {
            **{key: text for key, text in os.environ.items() if not key.startswith("MESH_")},
            **{f"MESH_{key}": text for key, text in settings.items()},
            "MESH_PORT": str(self.port),
        }
        self._log = log
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Process id of what runs."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it was started and doesn't run any more."""
        return self._process is not None and self._process.returncode is not None

    async def start(self) -> None:
        """Start it and return when it is ready to serve."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jarvis_mesh.cli.main", "gateway"),
                env=self._environment,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                # So that a test can send signals to it and its workers, as a terminal does.
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        await self.ready()

    async def ready(self) -> None:
        """Return once /readyz says so.

        Raises:
            TimeoutError: it didn't within half a minute.
        """
        async with asyncio.timeout(READY_WITHIN):
            while not await self._is_ready():
                await _CLOCK.sleep(0.05)

    async def kill(self) -> None:
        """Kill it, if it runs; return when it is gone."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def terminate(self) -> int:
        """Ask it to stop; return its exit code.

        Raises:
            TimeoutError: it hangs.
        """
        assert self._process is not None, "not started"
        self._process.terminate()
        async with asyncio.timeout(STOP_WITHIN):
            return await self._process.wait()

    def suspend(self) -> None:
        """Stop it in its tracks, as an overloaded machine does."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        with suppress(ProcessLookupError):
            assert self._process is not None, "not started"
            self._process.send_signal(signal.SIGCONT)

    async def _is_ready(self) -> bool:
        request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(2):
                tls = ssl._create_unverified_context() if self._is_tls else None  # noqa: S323
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
                try:
                    writer.write(request)
                    return b" 200 " in await reader.readline()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return False
