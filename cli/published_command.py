"""A command that runs in the user's terminal, with everything published around it.

agent:task:started → terminal:created → terminal:output, input … → terminal:closed
                   → agent:task:completed or agent:task:failed
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import signal
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Final

from jarvis_mesh.cli.terminal_mode import (
    STDIN,
    Screen,
    forward_keys,
    is_interactive,
    modes_of,
    raw_mode,
    window_size,
)
from jarvis_mesh.publishers import (
    AgentPublisher,
    EventPublisher,
    ExitStatus,
    Published,
    Terminal,
    TerminalService,
)
from jarvis_mesh.schema.errors import DeadlineError, ForbiddenError, SetupError, UnavailableError
from jarvis_mesh.schema.event import JSON

AGENT_ID: Final = "mesh-run"
START_PATIENCE: Final = 1.0
"""Seconds that the command may start later because of the mesh."""
END_PATIENCE: Final = 2.0
"""Seconds without progress after which the rest isn't published."""
NO_PATIENCE: Final = 0.2
_FORWARDED: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_FROM_KEYS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE)
"""Those that a terminal or a pipe sends to all who use it; the others are for one process."""


class PublishedCommand:
    """One run of *command*.

    Args:
        terminals: Open, for the terminal's events.
        agents: Open, for the task's events.
    """

    def __init__(
        self,
        command: Sequence[str],
        session: str,
        terminals: EventPublisher,
        agents: EventPublisher,
    ) -> None:
        self.dropped_bytes = 0
        """Output that the log may not have."""
        self._command = command
        self._session = session
        self._terminals = terminals
        self._agents = agents
        self._id = f"t-{secrets.token_hex(6)}"
        self._screen = Screen()
        self._terminal: Terminal | None = None
        self._early_signals: list[int] = []

    async def run(self) -> ExitStatus:
        """Run it to its end and return how it ended.

        Raises:
            SetupError: it can't be started.
            EventError: the session can't be one.
        """
        await self._tell_started()
        try:
            status = await self._run_in_terminal(interactive=is_interactive())
        except SetupError as error:
            await self._tell_failed(error.message, NO_PATIENCE)
            raise
        await self._tell_end(status)
        return status

    async def _run_in_terminal(self, *, interactive: bool) -> ExitStatus:
        size, modes = window_size(), modes_of(STDIN) if interactive else None
        # The signals first: one that ended us in raw mode would leave the terminal in it.
        with self._signals_forwarded(), raw_mode(STDIN) if interactive else nullcontext():
            async with TerminalService(self._terminals) as service:
                self._terminal = await service.create(
                    self._command,
                    terminal_id=self._id,
                    columns=size.columns,
                    rows=size.lines,
                    stdin=None if interactive else STDIN,
                    modes=modes,
                    session=self._session,
                    on_output=self._show,
                )
                for number in self._early_signals:
                    self._forward(number)
                return await self._attend(self._terminal, interactive=interactive)

    async def _attend(self, terminal: Terminal, *, interactive: bool) -> ExitStatus:
        async with asyncio.TaskGroup() as tasks:
            keys = tasks.create_task(forward_keys(STDIN, terminal)) if interactive else None
            status = await terminal.wait()
            if keys is not None:
                keys.cancel()
        self.dropped_bytes = terminal.dropped_bytes
        return status

    def _show(self, output: bytes) -> None:
        if self._screen.is_gone:
            return
        self._screen.show(output)
        if self._screen.is_gone:
            self._forward(signal.SIGPIPE)  # what it would get if it wrote there itself

    @contextmanager
    def _signals_forwarded(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # What is ignored is so on purpose: nohup, or a shell's background.
        numbers = [n for n in _FORWARDED if signal.getsignal(n) is not signal.SIG_IGN]
        for number in numbers:
            loop.add_signal_handler(number, self._forward, number)
        loop.add_signal_handler(signal.SIGWINCH, self._resize)
        try:
            yield
        finally:
            for number in (*numbers, signal.SIGWINCH):
                loop.remove_signal_handler(number)

    def _forward(self, number: int) -> None:
        if self._terminal is None:
            self._early_signals.append(number)
        elif number in _FROM_KEYS:
            self._terminal.send_signal(number)
        else:
            self._terminal.signal_program(number)

    def _resize(self) -> None:
        if self._terminal is not None:
            size = window_size()
            self._terminal.resize(size.columns, size.lines)

    async def _tell_started(self) -> None:
        agents = AgentPublisher(self._agents, timeout=START_PATIENCE)
        task = shlex.join(self._command)
        await _tell(
            agents.task_started(
                AGENT_ID, self._id, task, session=self._session, terminalId=self._id
            )
        )

    async def _tell_end(self, status: ExitStatus) -> None:
        patience = END_PATIENCE if await self._flush() else NO_PATIENCE
        if status.signal_name is not None:
            why = f"ended by {status.signal_name}"
            await self._tell_failed(why, patience, signal=status.signal_name)
        elif status.code:
            await self._tell_failed(f"exit code {status.code}", patience, exitCode=status.code)
        else:
            agents = AgentPublisher(self._agents, timeout=patience)
            await _tell(
                agents.task_completed(
                    AGENT_ID, self._id, session=self._session, terminalId=self._id, exitCode=0
                )
            )

    async def _tell_failed(self, error: str, patience: float, **how: JSON) -> None:
        agents = AgentPublisher(self._agents, timeout=patience)
        await _tell(
            agents.task_failed(
                AGENT_ID, self._id, error, session=self._session, terminalId=self._id, **how
            )
        )

    async def _flush(self) -> bool:
        """Return whether all of the terminal is in the log; give up when nothing moves."""
        while left := self._terminals.unacked:
            await self._terminals.flush(within=END_PATIENCE)
            if self._terminals.unacked >= left:
                return False
        return True


async def _tell(publishing: Awaitable[Published]) -> None:
    with suppress(UnavailableError, DeadlineError, ForbiddenError):  # the publisher counts it
        await publishing
