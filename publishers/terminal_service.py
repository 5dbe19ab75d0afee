"""Commands in real terminals, published as they run.

async with EventPublisher("terminal-service", nats_url) as publisher:
    async with TerminalService(publisher) as terminals:
        terminal = await terminals.create(["pytest", "-q"], session="s-42")
        status = await terminal.wait()
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog

from jarvis_mesh.publishers.base import EventPublisher
from jarvis_mesh.publishers.event_builder import Filing
from jarvis_mesh.publishers.pty_child import Launch, Modes, PtyChild, find_program
from jarvis_mesh.publishers.pty_terminal import Terminal
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import BadRequestError, SetupError, UnavailableError
from jarvis_mesh.schema.event import JSON

log = structlog.get_logger(__name__)


class TerminalService:
    """Makes terminals and owns them: leaving it ends their programs.

    Args:
        publisher: Made with the source `terminal-service`; whoever made it closes it, later.
    """

    def __init__(self, publisher: EventPublisher, *, clock: Clock | None = None) -> None:
        self.terminals: dict[str, Terminal] = {}
        """Those whose program runs, by id."""
        self._publisher = publisher
        self._clock = clock or SystemClock()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await asyncio.gather(*(terminal.close() for terminal in self.terminals.values()))
        finally:
            # Not told of the body's exception, which it would wrap into a group.
            await self._group.__aexit__(None, None, None)

    async def create(
        self,
        command: Sequence[str],
        *,
        terminal_id: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        columns: int = 80,
        rows: int = 24,
        stdin: int | None = None,
        modes: Modes | None = None,
        user: str | None = None,
        session: str | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Terminal:
        """Start *command* in a new terminal and publish `terminal:created`.

        Args:
            terminal_id: A new one is made when `None`.
            env: The whole environment; this process's own when `None`.
            stdin: File descriptor that becomes the program's standard input, so that its end
                and its bytes arrive as they are; the terminal when `None`.
            modes: The terminal's settings at first, as `termios.tcgetattr` gives them.
            on_output: Called with every piece of output as it is read. It must not block.

        Raises:
            SetupError: the command can't be started.
            BadRequestError, EventError: *terminal_id* is in use, or can't be an entity.
        """
        launch = Launch(tuple(command), cwd, env, columns, rows, stdin, modes)
        find_program(launch)
        terminal_id = terminal_id or f"t-{secrets.token_hex(6)}"
        if terminal_id in self.terminals:
            raise BadRequestError(f"there is a terminal {terminal_id!r} already")
        filing = Filing(entity=terminal_id, user=user, session=session)
        self._publish_created(terminal_id, launch, filing)
        terminal = Terminal(
            terminal_id,
            self._start(terminal_id, launch, filing),
            self._publisher,
            filing,
            clock=self._clock,
            on_output=on_output,
        )
        self.terminals[terminal_id] = terminal
        self._group.create_task(self._run(terminal))
        return terminal

    async def _run(self, terminal: Terminal) -> None:
        try:
            await terminal.run()
        finally:
            del self.terminals[terminal.id]

    def _start(self, terminal_id: str, launch: Launch, filing: Filing) -> PtyChild:
        try:
            return PtyChild(launch)
        except SetupError as error:
            self._publish("error", {"terminalId": terminal_id, "error": error.message}, filing)
            raise

    def _publish_created(self, terminal_id: str, launch: Launch, filing: Filing) -> None:
        payload: dict[str, JSON] = {
            "terminalId": terminal_id,
            "command": shlex.join(launch.command),
            "columns": launch.columns,
            "rows": launch.rows,
        }
        if launch.cwd is not None:
            payload["cwd"] = launch.cwd
        self._publish("created", payload, filing)

    def _publish(self, name: str, payload: dict[str, JSON], filing: Filing) -> None:
        try:
            self._publisher.send_nowait(f"terminal:{name}", payload, **filing)
        except UnavailableError as error:
            log.warning("not published", type=f"terminal:{name}", why=error.message)
