"""A child process on a pseudo-terminal: started, resized, signalled, and reaped.

ptyprocess makes the pseudo-terminal and the fork. Its own `close` and `wait` block for tenths of
a second, so everything after the start is done here, with the loop.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import termios
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import ptyprocess

from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import SetupError

_POLL: Final = 0.05
"""Seconds between looks for the child's end, where the kernel has no pidfd (not Linux 5.3)."""
_SIGNAL_BASE: Final = 128
"""What shells add to a signal's number in an exit code."""

Modes: TypeAlias = list[int | list[bytes | int]]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended: one of both is `None`."""

    code: int | None
    signal: int | None

    @property
    def signal_name(self) -> str | None:
        """Such as `SIGKILL`."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"SIG{self.signal}"  # real-time signals have no name of their own

    @property
    def shell_code(self) -> int:
        """What a shell's `$?` would be: 128 + n for signal n."""
        return _SIGNAL_BASE + self.signal if self.signal is not None else self.code or 0


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start, and how."""

    command: Sequence[str]
    cwd: str | None = None
    env: Mapping[str, str] | None = None
    """The whole environment; this process's own when `None`."""
    columns: int = 80
    rows: int = 24
    stdin: int | None = None
    """File descriptor that becomes the program's standard input; the terminal when `None`."""
    modes: Modes | None = None
    """The terminal's settings as `termios.tcgetattr` gives them; the kernel's when `None`."""


class PtyChild:
    """One child process and the terminal's master side, whose `fd` never blocks."""

    def __init__(self, launch: Launch) -> None:
        """Start it.

        Raises:
            SetupError: it can't be; the message says why.
        """
        self._process = _spawn(launch)
        self.pid: int = self._process.pid
        self.fd: int = self._process.fd
        self._status: ExitStatus | None = None
        os.set_blocking(self.fd, False)

    @property
    def echo(self) -> bool:
        """Whether what is typed shows: programs turn that off while they ask for a password."""
        try:
            flags: int = termios.tcgetattr(self.fd)[3]
        except (termios.error, ValueError):
            return False
        return bool(flags & termios.ECHO)

    def resize(self, columns: int, rows: int) -> None:
        """Set the window's size; the kernel sends SIGWINCH. Nothing happens once closed."""
        if self.fd >= 0:
            self._process.setwinsize(rows, columns)

    def send_signal(self, number: int) -> None:
        """Send a signal to the terminal's foreground processes, as a typed Ctrl-C would."""
        if self._status is not None:
            return
        with suppress(OSError):  # they may all end just now
            group = os.tcgetpgrp(self.fd)
            if group > 0:  # 0 would be our own
                os.killpg(group, number)

    def signal_program(self, number: int) -> None:
        """Send a signal to the program alone, as `kill` with its process id would."""
        if self._status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def end(self, number: int) -> None:
        """Send a signal to the program itself and its process group."""
        if self._status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def wait(self, clock: Clock) -> ExitStatus:
        """Return how it ended, having reaped it. For one caller."""
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            while (status := self._reap(os.WNOHANG)) is None:
                await clock.sleep(_POLL)
            return status
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        return self._reap(0) or ExitStatus(0, None)

    def close(self) -> None:
        """Close the terminal; kill and reap a program that still runs. Idempotent."""
        if self._process.closed:
            return
        if self._status is None:
            self.end(signal.SIGKILL)
            self._reap(0)
        self._process.fileobj.close()
        self._process.closed = True
        self.fd = -1

    def _reap(self, options: int) -> ExitStatus | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            self._status = ExitStatus(None, -code) if code < 0 else ExitStatus(code, None)
            self._process.terminated = True
        return self._status


def find_program(launch: Launch) -> str:
    """Return the path of the program to start.

    Raises:
        SetupError: there is none of that name, or it isn't executable.
    """
    if not launch.command:
        raise SetupError("no command given")
    name = launch.command[0]
    path = (launch.env or os.environ).get("PATH", os.defpath)
    if os.sep in name:
        full = os.path.join(launch.cwd or os.curdir, name)
        if os.access(full, os.X_OK) and not os.path.isdir(full):
            return os.path.abspath(full)
        why = "is not executable" if os.path.exists(full) else "not found"
        raise SetupError(f"{name}: {why}")
    if found := shutil.which(name, path=path):
        return os.path.abspath(found)
    raise SetupError(f"{name}: command not found")


def _spawn(launch: Launch) -> ptyprocess.PtyProcess:
    program = find_program(launch)
    # Above 2, since ptyprocess closes what lies between the descriptors that it passes on.
    stdin = None if launch.stdin is None else fcntl.fcntl(launch.stdin, fcntl.F_DUPFD_CLOEXEC, 3)

    def prepare() -> None:
        # Python ignores these two, and a program would inherit that: `yes | head` complains.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if launch.modes is not None:
            termios.tcsetattr(1, termios.TCSANOW, launch.modes)
        if stdin is not None:
            os.dup2(stdin, 0)
        if launch.cwd is not None:  # not ptyprocess's `cwd`, whose failure nobody catches
            os.chdir(launch.cwd)

    try:
        return ptyprocess.PtyProcess.spawn(
            [program, *launch.command[1:]],
            env=None if launch.env is None else dict(launch.env),
            preexec_fn=prepare,
            dimensions=(launch.rows, launch.columns),
            pass_fds=() if stdin is None else (stdin,),
        )
    except (OSError, ptyprocess.PtyProcessError) as error:
        # The frames hold ptyprocess's object, which reaps the failed child when it goes.
        traceback.clear_frames(error.__traceback__)
        raise SetupError(f"{launch.command[0]} can't be started: {error}") from None
    finally:
        if stdin is not None:
            os.close(stdin)
