"""One running terminal: its program's output is read, shown and published, until all has come.

The order at the end: the program exits and is reaped; what it wrote is read until the kernel
says that nobody holds the terminal any more, or, when something in the background does, until
there is silence; then come the last output event and `terminal:closed`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from jarvis_mesh.publishers.base import EventPublisher
from jarvis_mesh.publishers.event_builder import Filing
from jarvis_mesh.publishers.output_feed import OutputFeed
from jarvis_mesh.publishers.pty_child import ExitStatus, PtyChild
from jarvis_mesh.publishers.utf8 import Utf8Decoder
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import UnavailableError
from jarvis_mesh.schema.event import JSON

READ_BYTES: Final = 64 * 1024
"""Linux gives 4 KiB at a time."""
HANG_UP_GRACE: Final = 2.0
"""Seconds between SIGHUP and SIGKILL."""
_QUIET: Final = 0.1
"""Seconds of silence after which the output of a program that has exited counts as complete."""
_DRAIN_LEAST_BYTES: Final = 1024 * 1024
"""More than a terminal's buffers hold: what comes after it, something in the background wrote."""
_DRAIN_AT_LEAST: Final = 1.0
_REOPEN_POLL: Final = 0.05
"""Seconds; a program may close its terminal and open it again as /dev/tty."""

log = structlog.get_logger(__name__)


class Terminal:
    """A program in a terminal. `TerminalService.create` makes and runs it.

    Args:
        on_output: Called with every piece of output as it is read.
    """

    def __init__(
        self,
        terminal_id: str,
        child: PtyChild,
        publisher: EventPublisher,
        filing: Filing,
        *,
        clock: Clock,
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        self.id = terminal_id
        self.pid = child.pid
        self._child = child
        self._publisher = publisher
        self._filing = filing
        self._clock = clock
        self._on_output = on_output
        self._payload: dict[str, JSON] = {"terminalId": terminal_id}
        self._feed = OutputFeed(
            publisher, self._payload, filing, clock=clock, on_room=self._read_on
        )
        self._input = Utf8Decoder()
        self._writing = asyncio.Lock()
        self._bytes_read = 0
        self._no_holder = asyncio.Event()
        """Set while no process holds the terminal: all output has been read."""
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()
        self._status: ExitStatus | None = None

    @property
    def dropped_bytes(self) -> int:
        """Output that the log doesn't have, or may not have."""
        return self._feed.dropped_bytes

    async def wait(self) -> ExitStatus:
        """Return how the program ended, after its last output was shown and admitted."""
        await self._closed.wait()
        assert self._status is not None, "set before `_closed`"  # noqa: S101
        return self._status

    async def write(self, data: bytes) -> None:
        """Type *data*; return when the terminal has taken it.

        It is published as `terminal:input` while the program lets the terminal show what is
        typed; otherwise it may be a password, and nobody learns of it.

        Raises:
            UnavailableError: the program has ended.
        """
        async with self._writing:
            view = memoryview(data)
            while view:
                if self._child.fd < 0:
                    raise UnavailableError(f"terminal {self.id} is closed")
                echo = self._child.echo
                try:
                    taken = os.write(self._child.fd, view)
                except BlockingIOError:
                    await self._until_writable()
                    continue
                except OSError:
                    raise UnavailableError(f"terminal {self.id} is closed") from None
                self._publish_input(bytes(view[:taken]), echo=echo)
                view = view[taken:]

    def resize(self, columns: int, rows: int) -> None:
        """Set the window's size; the program gets SIGWINCH."""
        self._child.resize(columns, rows)

    def send_signal(self, number: int) -> None:
        """Send a signal to whatever has the terminal now, as Ctrl-C would SIGINT."""
        self._child.send_signal(number)

    def signal_program(self, number: int) -> None:
        """Send a signal to the program alone, as `kill` with its process id would."""
        self._child.signal_program(number)

    async def close(self) -> None:
        """End the program as a closed window would: SIGHUP, then SIGKILL. Idempotent."""
        self._child.end(signal.SIGHUP)
        self._child.end(signal.SIGCONT)  # a stopped one can't heed it
        try:
            async with asyncio.timeout(HANG_UP_GRACE):
                await self._closed.wait()
        except TimeoutError:
            self._child.end(signal.SIGKILL)
            await self._closed.wait()

    async def run(self) -> None:
        """Read and publish until the program has ended and all of its output has come."""
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed.run())
                reopening = group.create_task(self._read_again_when_reopened())
                self._read_on()
                self._status = await self._child.wait(self._clock)
                reopening.cancel()
                await self._drain()
                feeding.cancel()
            await self._feed.finish()
            self._publish_closed(self._status)
        finally:
            self._stop_reading()
            asyncio.get_running_loop().remove_writer(self._child.fd)
            self._child.close()
            if self._status is None:  # we were cancelled, and `close` killed it
                self._status = ExitStatus(None, signal.SIGKILL)
            self._closed.set()
            self._writable.set()  # whoever waits to write learns that it is over

    def _read_on(self) -> None:
        if self._child.fd >= 0 and not self._feed.is_full and not self._no_holder.is_set():
            asyncio.get_running_loop().add_reader(self._child.fd, self._read)

    def _stop_reading(self) -> None:
        if self._child.fd >= 0:
            asyncio.get_running_loop().remove_reader(self._child.fd)

    def _read(self) -> None:
        try:
            chunk = os.read(self._child.fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO is how Linux says that nobody holds the other side
            chunk = b""
        if not chunk:
            self._stop_reading()
            self._no_holder.set()
            return
        self._bytes_read += len(chunk)
        self._feed.add(chunk)
        if self._on_output is not None:
            self._on_output(chunk)
        if self._feed.is_full:
            self._stop_reading()

    async def _read_again_when_reopened(self) -> None:
        while True:
            await self._no_holder.wait()
            await self._clock.sleep(_REOPEN_POLL)
            self._no_holder.clear()
            self._read_on()

    async def _drain(self) -> None:
        """Read what the program has written before it exited.

        The kernel hands over all of that before it says EIO. It never says so while a process
        in the background keeps the terminal, which must not keep us.
        """
        self._no_holder.clear()
        self._read_on()
        exited, read_then = self._clock.monotonic(), self._bytes_read
        while not self._no_holder.is_set():
            before = self._bytes_read
            with suppress(TimeoutError):  # judged below
                async with asyncio.timeout(_QUIET):
                    await self._no_holder.wait()
            is_quiet = self._bytes_read == before and not self._feed.is_full
            is_long = self._clock.monotonic() - exited > _DRAIN_AT_LEAST
            if is_quiet or (is_long and self._bytes_read - read_then > _DRAIN_LEAST_BYTES):
                return

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._writable.clear()
        loop.add_writer(self._child.fd, self._writable.set)
        try:
            await self._writable.wait()
        finally:
            if self._child.fd >= 0:
                loop.remove_writer(self._child.fd)

    def _publish_input(self, data: bytes, *, echo: bool) -> None:
        if not echo:
            self._input.reset()
            return
        decoded = self._input.decode(data)
        if decoded.data:
            self._publish("input", decoded.as_payload("input"))

    def _publish_closed(self, status: ExitStatus) -> None:
        how: dict[str, JSON] = (
            {"exitCode": status.code} if status.signal is None else {"signal": status.signal_name}
        )
        self._publish("closed", how | self._feed.take_unsaid())

    def _publish(self, name: str, payload: dict[str, JSON]) -> None:
        """Publish if there is room: a mesh that is away must not hold the program up."""
        try:
            self._publisher.send_nowait(f"terminal:{name}", self._payload | payload, **self._filing)
        except UnavailableError as error:
            log.warning("not published", type=f"terminal:{name}", id=self.id, why=error.message)
