"""`mesh run`: a command as usual, and published.

What the user typed into stays theirs: keys, Ctrl-C, window size, standard input and exit code
reach the command or come from it as without `mesh run`. The mesh may be away, go away or
freeze: the command runs on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from typing import Annotated, Final, NoReturn

import structlog
import typer

from jarvis_mesh.cli.failures import without_secrets
from jarvis_mesh.cli.local import nats_credentials, nats_url
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.cli.printable import printable
from jarvis_mesh.cli.published_command import NO_PATIENCE, START_PATIENCE, PublishedCommand
from jarvis_mesh.cli.terminal_mode import STDIN
from jarvis_mesh.publishers import (
    AgentPublisher,
    EventPublisher,
    ExitStatus,
    TerminalPublisher,
)
from jarvis_mesh.publishers.pty_child import Launch, find_program
from jarvis_mesh.schema.errors import MeshError, SetupError

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""The exit codes of shells."""


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="The command and its arguments.")
    ],
    session: Annotated[
        str | None,
        typer.Option(help="The session of work it is part of.", show_default="a new one"),
    ] = None,
    nats: Annotated[
        str | None, typer.Option(metavar="URL", help="NATS, with user and password.")
    ] = None,
) -> None:
    """Run a command and publish it.

    Its output, what is typed and its end become terminal events, between
    agent:task:started and agent:task:completed or failed, all of one session.
    The exit code is its own.

    It runs in a terminal, as under script(1): into a pipe, lines end in CRLF
    and stderr comes with stdout. What is typed is published only where the
    terminal echoes it: no passwords, and not what is typed into the line
    editors of bash and Python, which switch the echo off.
    """
    _set_up_logs()
    _open_stdin()
    program = _find(command)
    try:
        status = asyncio.run(_run(command, session or f"run-{secrets.token_hex(4)}", nats))
    except SetupError as error:
        _say(error.message)
        raise typer.Exit(NOT_EXECUTABLE) from None
    if status is None:
        _become(program, command)
    raise typer.Exit(status.shell_code)


async def _run(command: list[str], session: str, nats: str | None) -> ExitStatus | None:
    """Return how the command ended; `None` if it wasn't started, since there is no mesh."""
    async with AsyncExitStack() as stack:
        try:
            terminals = await stack.enter_async_context(_publisher(TerminalPublisher.source, nats))
            agents = await stack.enter_async_context(_publisher(AgentPublisher.source, nats))
        except MeshError as error:
            _say(f"not published: {error.message}")
            return None
        work = PublishedCommand(command, session, terminals, agents)
        status = await work.run()
    lost = terminals.lost + terminals.refused + agents.lost
    if lost or work.dropped_bytes:
        _say(
            f"the mesh took not all of it: {lost} events and "
            f"{work.dropped_bytes} bytes of output may be missing"
        )
    return status


def _publisher(source: str, nats: str | None) -> EventPublisher:
    return EventPublisher(
        source,
        nats_url(source, nats),
        credentials=nats_credentials(source, nats),
        connect_timeout=START_PATIENCE,
        close_timeout=NO_PATIENCE,
    )


def _find(command: list[str]) -> str:
    try:
        return find_program(Launch(command))
    except SetupError as error:
        _say(error.message)
        exists = os.sep in command[0] and os.path.exists(command[0])
        raise typer.Exit(NOT_EXECUTABLE if exists else NOT_FOUND) from None


def _become(program: str, command: list[str]) -> NoReturn:
    """Replace this process by the command: nothing can be more like running it alone."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and it is inherited
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(program, command)  # noqa: S606 - the user's own command
    except OSError as error:
        _say(f"{command[0]} can't be started: {error.strerror}")
        raise typer.Exit(NOT_EXECUTABLE) from None


def _open_stdin() -> None:
    """Make sure that descriptor 0 is a standard input, and no file or socket of ours."""
    try:
        os.fstat(STDIN)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        os.open(os.devnull, os.O_RDONLY)


def _set_up_logs() -> None:
    """Log nothing, since the screen is the command's; all of it with MESH_DEBUG."""
    if os.environ.get("MESH_DEBUG"):
        set_up_logs()
        return
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _say(sentence: str) -> None:
    print(f"mesh: {printable(without_secrets(sentence))}", file=sys.stderr)
