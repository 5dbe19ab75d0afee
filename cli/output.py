"""Writing to standard output without ever blocking the loop.

A blocked `write` (Ctrl-S, a pipe whose reader pauses) would hold up everything else in the
process: signals, the connection. So this waits until the kernel takes 4,096 bytes, and writes
no more at a time. Setting O_NONBLOCK instead would do so for every process that shares the
terminal.

Source: pipe(7), PIPE_BUF.
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import Final

from jarvis_mesh.schema.errors import SetupError

_CHUNK: Final = 4096
"""PIPE_BUF on Linux: when poll() says so, a pipe takes that much at once."""


class Output:
    """A file descriptor that lines are written to, each before the next is asked for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, text: str) -> None:
        """Return once all of *text* is written.

        Raises:
            BrokenPipeError: nobody reads any more.
            SetupError: it can't be written, for example because the disk is full.
        """
        rest = memoryview(text.encode(errors="backslashreplace"))
        while rest:
            if not self._poll.poll(0):
                await self._wait()
            try:
                rest = rest[os.write(self._descriptor, rest[:_CHUNK]) :]
            except BrokenPipeError:
                raise
            except OSError as error:
                raise SetupError(f"the output can't be written: {error.strerror}") from None

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._descriptor)
