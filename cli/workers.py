"""`mesh gateway --workers N`: N processes that serve, and this one, which keeps them running.

Each worker is a gateway of its own, with a listening socket of its own on the same port, among
which the kernel spreads connections. They are made and kept here: what arrives while a worker
is being replaced waits in its socket for the replacement.

uvicorn's supervisor (`uvicorn.supervisors.Multiprocess`) doesn't fit: it runs uvicorn's server
itself, while ours is run by `serve`, which drains and tells failures for good from others; and
one socket for all workers lets whoever wakes up first swallow a burst.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from jarvis_mesh.cli.leftovers import end_with_parent
from jarvis_mesh.cli.listening import spread
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.cli.supervisor import BACKOFF, STEADY
from jarvis_mesh.cli.worker import FAILED_FOR_GOOD, Job, reason_path
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.worker_metrics import WorkerPlace
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import SetupError

MAX_PAUSE: Final = 5.0
"""Seconds before a worker that keeps dying is started again, at most: clients may be waiting."""
STOP_MARGIN: Final = 5.0
"""Seconds that a worker gets to stop beyond those that its clients get to leave."""

log = structlog.get_logger(__name__)


async def run_workers(
    settings: Settings, sock: socket.socket, stop: StopSignals, clock: Clock
) -> None:
    """Serve on the address of *sock* with several processes, until *stop* says so.

    Args:
        settings: Those of every worker, but that only the first one makes the log.
        sock: It listens already, and becomes the first worker's.

    Raises:
        SetupError: a worker failed for good, or nothing could be started.
    """
    try:
        folder = TemporaryDirectory(prefix="mesh-workers-")
    except OSError as error:
        raise SetupError(f"no folder for what workers share: {error}; set TMPDIR") from None
    with folder as path, spread(sock, settings.workers) as sockets:
        await _Workers(settings, sockets, Path(path), stop, clock).run()


class _Workers:
    """All workers, from the first start to the last end."""

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[socket.socket],
        folder: Path,
        stop: StopSignals,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._folder = folder
        self._stop = stop
        self._clock = clock
        self._cause: SetupError | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, sock in enumerate(self._sockets, 1):
                tasks.create_task(self._keep(self._place(number), sock))
            await self._stop.asked.wait()
            log.info("stopping (once more to hurry)")
            # A worker's copy is the last now: who comes after its end is refused, not kept waiting.
            for sock in self._sockets:
                sock.close()
        if self._cause is not None:
            raise self._cause

    def _place(self, number: int) -> WorkerPlace:
        return WorkerPlace(number, len(self._sockets), self._folder)

    def _settings_of(self, place: WorkerPlace) -> Settings:
        if place.number == 1:
            return self._settings
        return self._settings.model_copy(update={"nats_admin_url": None})

    async def _keep(self, place: WorkerPlace, sock: socket.socket) -> None:
        """Keep one worker running until everything stops."""
        deaths = 0
        while not self._stop.asked.is_set():
            since = self._clock.monotonic()
            end = await self._live(place, sock)
            if self._stop.asked.is_set():
                return
            if end == FAILED_FOR_GOOD:
                self._give_up(place)
                return
            deaths = deaths + 1 if self._clock.monotonic() - since < STEADY else 1
            log.warning("a worker ended; starting it again", worker=place.number, code=end)
            await unless(self._stop.asked, self._clock.sleep(pause_after(deaths)))

    async def _live(self, place: WorkerPlace, sock: socket.socket) -> int | str:
        """Run one process to its end; return its exit code, or why there is none."""
        try:
            process = await _start(self._settings_of(place), place, sock)
        except OSError as error:
            return f"can't be started: {error}"
        try:
            await unless(self._stop.asked, process.wait())
            if process.returncode is None:
                await self._let_drain(process)
        finally:
            if process.returncode is None:
                log.warning("killing a worker", worker=place.number)
                with suppress(ProcessLookupError):
                    process.kill()
            code = await process.wait()
        return code

    async def _let_drain(self, process: Process) -> None:
        with suppress(ProcessLookupError, TimeoutError):
            process.terminate()
            async with asyncio.timeout(self._settings.drain + STOP_MARGIN):
                await unless(self._stop.hurry, process.wait())

    def _give_up(self, place: WorkerPlace) -> None:
        """Stop everything because of a worker that would fail again."""
        try:
            reason = reason_path(place).read_text()
        except OSError:
            reason = f"worker {place.number} can't start; its log above says why"
        self._cause = self._cause or SetupError(reason)
        self._stop.asked.set()


def pause_after(deaths: int) -> float:
    """Return the seconds before a worker is started again that died so often in a row."""
    return min(BACKOFF * 2.0 ** min(deaths - 1, 16), MAX_PAUSE)


async def _start(settings: Settings, place: WorkerPlace, sock: socket.socket) -> Process:
    job: Job = (settings, place, sock.fileno())  # before any wait: stopping closes it
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # or -m would look for modules where the command happens to be used
        *("-m", "jarvis_mesh.cli.worker", str(place.number)),  # the number is for `ps`
        stdin=PIPE,
        pass_fds=[sock.fileno()],
        preexec_fn=_in_child(),
    )
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    process.stdin.write(pickle.dumps(job))
    return process


def _in_child() -> Callable[[], None]:
    # Killed, as a lone gateway would be: one that drains would still hold the port when
    # whoever killed us starts us again.
    bind_to_parent = end_with_parent(signal.SIGKILL)

    def in_child() -> None:
        # Ctrl-C and a hang-up reach all of the terminal's processes; we tell the workers.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if bind_to_parent is not None:
            bind_to_parent()

    return in_child
