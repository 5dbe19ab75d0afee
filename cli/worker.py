"""One worker of `mesh gateway --workers N`: what `cli/workers.py` starts.

It gets its settings through a pipe, as a command line with passwords in it would be seen by all,
and that pipe's end is the end of whoever started it. SIGTERM, however often, makes it drain;
other signals of the terminal aren't its own to act on.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

import structlog

from jarvis_mesh.cli.failures import fail, mesh_error_in
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.server import serve
from jarvis_mesh.gateway.worker_metrics import WorkerPlace
from jarvis_mesh.schema.errors import SetupError

FAILED_FOR_GOOD: Final = 78
"""Exit code of a worker that would fail again (EX_CONFIG of sysexits.h)."""

Job = tuple[Settings, WorkerPlace, int]
"""What comes through the pipe: settings, which worker it is, and its socket's descriptor."""


def reason_path(place: WorkerPlace) -> Path:
    """Return the file in which a worker that failed for good leaves the reason."""
    return place.folder / f"{place.number}.reason"


def main() -> None:
    """Serve until told to stop."""
    job: Job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    _, place, _ = job
    set_up_logs()
    structlog.contextvars.bind_contextvars(worker=place.number)
    try:
        asyncio.run(_run(job))
    except Exception as error:  # noqa: BLE001 - here the program ends
        expected = mesh_error_in(error)
        if isinstance(expected, SetupError):
            _give_up(place, expected)
        fail(error)


async def _run(job: Job) -> None:
    settings, place, fd = job
    loop = asyncio.get_running_loop()
    stopping, abandoned = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    stdin = sys.stdin.fileno()

    def on_end_of_pipe() -> None:
        loop.remove_reader(stdin)
        abandoned.set()

    loop.add_reader(stdin, on_end_of_pipe)
    with socket.socket(fileno=fd) as sock:
        await unless(abandoned, serve(settings, sock, stopping, place))


def _give_up(place: WorkerPlace, error: SetupError) -> NoReturn:
    """End, and leave it to the parent to say why: it does so once for all workers."""
    reason_path(place).write_text(error.message)
    sys.exit(FAILED_FOR_GOOD)


if __name__ == "__main__":
    main()
