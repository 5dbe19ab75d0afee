"""A child that doesn't outlive us, even when we are killed.

On Linux the kernel ends it when we die. Whoever starts next on the same store first ends what is
left all the same (a server that hung, another system): two servers would ruin the store.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from jarvis_mesh.schema.clock import Clock

PATIENCE: Final = 5.0
"""Seconds a leftover server gets to end by itself before it is killed."""
_PR_SET_PDEATHSIG: Final = 1
_POLL: Final = 0.05


def end_with_parent(
    number: signal.Signals = signal.SIGTERM,
) -> Callable[[], None] | None:
    """Return what a child calls before it runs its program (`preexec_fn`), where that works.

    It gets the signal *number* when we die.
    The child is bound to the thread that starts it, which must be one that lasts: ours is the
    event loop's.
    """
    if sys.platform != "linux":
        return None
    # Loaded before the fork: afterwards the child should do as little as possible.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)

    return in_child


def store_flag(store_dir: Path) -> str:
    """Return the nats-server flag by which a list of processes tells whose store it uses."""
    return f"--ports_file_dir={store_dir.absolute()}"


async def end_leftovers(store_dir: Path, clock: Clock) -> int:
    """End nats-servers that still use *store_dir*; return how many once they are gone."""
    ended = set()
    kill_at = clock.monotonic() + PATIENCE
    while leftovers := list(_servers_on(store_dir)):
        number = signal.SIGTERM if clock.monotonic() < kill_at else signal.SIGKILL
        for process in leftovers:
            ended.add(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile: good
                process.send_signal(number)
        await clock.sleep(_POLL)
    return len(ended)


def _servers_on(store_dir: Path) -> Iterator[psutil.Process]:
    flag = store_flag(store_dir)
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and flag in (
            process.info["cmdline"] or ()
        ):
            yield process
