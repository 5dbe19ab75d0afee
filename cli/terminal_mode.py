"""The terminal that a command was typed into: its modes, its size, its keys, its screen."""

from __future__ import annotations

import asyncio
import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from jarvis_mesh.publishers import Terminal
from jarvis_mesh.publishers.pty_child import Modes
from jarvis_mesh.schema.errors import UnavailableError

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
_READ_BYTES: Final = 4096
_NO_SIZE: Final = os.terminal_size((80, 24))


def is_interactive() -> bool:
    """Say whether a person types here and sees what comes, and no other program does both.

    In `mesh run ls | less` the keys are for `less`, and behind an `&` for the shell.
    """
    if not (os.isatty(STDIN) and os.isatty(STDOUT)):
        return False
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False  # a terminal that isn't ours


def modes_of(descriptor: int) -> Modes | None:
    """Return the settings of a terminal; `None` if it is none."""
    try:
        return termios.tcgetattr(descriptor)
    except termios.error:
        return None


def window_size() -> os.terminal_size:
    """Return the size of the window that output goes to; 80 × 24 if there is none."""
    for descriptor in (STDOUT, STDERR, STDIN):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.columns and size.lines:
            return size
    return _NO_SIZE


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Pass every key on as it is typed, Ctrl-C too; restore the terminal whatever happens."""
    modes = termios.tcgetattr(descriptor)
    # Not the default TCSAFLUSH: it would throw away what was typed ahead.
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)


async def forward_keys(descriptor: int, terminal: Terminal) -> None:
    """Type into *terminal* whatever comes from *descriptor*, until either ends."""
    while True:
        await _readable(descriptor)
        try:
            keys = os.read(descriptor, _READ_BYTES)
            if not keys:
                return
            await terminal.write(keys)
        except (OSError, UnavailableError):
            return  # the window is gone, or the program has ended


class Screen:
    """Standard output, written at once. It blocks, and so does the program, as usual."""

    def __init__(self) -> None:
        self.is_gone = False
        """Whether nobody reads it any more."""

    def show(self, output: bytes) -> None:
        """Write all of *output*; nothing once the screen is gone."""
        view = memoryview(output)
        while view and not self.is_gone:
            try:
                view = view[os.write(STDOUT, view) :]
            except BlockingIOError:  # whoever started us has left it non-blocking
                select.select([], [STDOUT], [])
            except OSError:
                self.is_gone = True


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
