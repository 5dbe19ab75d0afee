"""`mesh sub`: events on the terminal, or as JSON lines for another program."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated, Final

import typer
from rich.console import Console

from jarvis_mesh.cli.event_text import event_line, json_line
from jarvis_mesh.cli.failures import advising, advising_token
from jarvis_mesh.cli.local import gateway_token, gateway_url
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.cli.output import Output
from jarvis_mesh.cli.printable import printable
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.cli.since import parse_since_option
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.client import (
    ConnectionNotice,
    ErrorNotice,
    GapNotice,
    LaggingNotice,
    LiveNotice,
    Mesh,
    Subscription,
)
from jarvis_mesh.schema.errors import UnauthorizedError
from jarvis_mesh.schema.event import Event

_GAPS: Final = {
    "expired": "the log no longer has them (expired)",
    "epoch": "the cursor is of another log, and this one was made anew (epoch); "
    "it is shown from its start",
    "reset": "the log has lost its end, as by a power loss (reset); it is shown from its start",
    "unreadable": "that one isn't a valid event (unreadable)",
}
"""What is said of each reason of a gap."""


def sub(
    channels: Annotated[
        list[str],
        typer.Argument(metavar="CHANNEL…", help="Such as all, event:agent:** or session:s-42."),
    ],
    since: Annotated[
        str | None,
        typer.Option(
            help="10m, 1h30m, 2d, a time, start, last, or a cursor.", show_default="from now"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print {"cursor":…,"event":{…}} a line.')
    ] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many events.", show_default="never")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The gateway's URL.")] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Who you are; by MESH_TOKEN nobody sees it in `ps`.", show_default="$MESH_TOKEN"
        ),
    ] = None,
) -> None:
    """Watch events live.

    At its end the cursor goes to stderr: give it as --since to go on there
    and miss nothing. Gaps, lagging and lost connections are said on stderr.
    """
    set_up_logs()
    start = None if since is None else parse_since_option(since)
    watch = _Watch(channels, start, as_json=as_json, count=count)
    asyncio.run(watch.run(gateway_url(url), gateway_token(token)))


class _Watch:
    """One run of the command."""

    def __init__(
        self,
        channels: Sequence[str],
        since: timedelta | str | None,
        *,
        as_json: bool,
        count: int | None,
    ) -> None:
        self._channels = channels
        self._since = since
        self._as_json = as_json
        self._left = count
        self._console = Console() if sys.stdout.isatty() else None
        self._output = Output(sys.stdout.fileno())
        self._subscription: Subscription | None = None
        self._unwritten_after: str | None = None
        """While an event is being written: the cursor before it."""

    async def run(self, url: str, token: str | None) -> None:
        """Watch until enough came, a signal asks to stop, or nobody reads."""
        with StopSignals().caught() as signals:
            try:
                with advising_token(token):
                    await unless(signals.asked, self._watch(url, token))
            except BrokenPipeError:
                pass  # `| head` has what it wants
            finally:
                if cursor := self._cursor():
                    _say(f"cursor: {cursor}")

    def _cursor(self) -> str | None:
        """Return where to go on after the last event that was written whole."""
        if self._unwritten_after is not None:
            return self._unwritten_after
        return None if self._subscription is None else self._subscription.cursor

    async def _watch(self, url: str, token: str | None) -> None:
        async with contextlib.AsyncExitStack() as stack:
            with advising("start one with `mesh up`, or name one by --url"):
                mesh = await stack.enter_async_context(Mesh.connect(url, token=token))
            stack.enter_context(_told_on_stderr(mesh))
            subscription = mesh.subscribe(self._channels, since=self._since)
            await subscription.ready()
            self._subscription = subscription
            await self._show(subscription)

    async def _show(self, subscription: Subscription) -> None:
        before = subscription.cursor
        async for event in subscription:
            self._unwritten_after = before
            before = subscription.cursor
            await self._output.write(self._line(event, before or ""))
            self._unwritten_after = None
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    return

    def _line(self, event: Event, cursor: str) -> str:
        if self._as_json:
            return f"{json_line(event, cursor)}\n"
        line = event_line(event)
        if self._console is None:
            return f"{line.plain}\n"
        with self._console.capture() as capture:
            self._console.print(line, no_wrap=True, overflow="ellipsis", highlight=False)
        return capture.get()


@contextlib.contextmanager
def _told_on_stderr(mesh: Mesh) -> Iterator[None]:
    """Say on stderr what happens to the feed, within."""
    with contextlib.ExitStack() as stack:
        stack.callback(mesh.on("connection", _say_connection))
        stack.callback(mesh.on("gap", _say_gap))
        stack.callback(mesh.on("lagging", _say_lagging))
        stack.callback(mesh.on("live", _say_live))
        stack.callback(mesh.on("error", _say_error))
        yield


def _say_connection(notice: ConnectionNotice) -> None:
    if notice.is_connected:
        _say("mesh: connected again")
    elif not notice.is_final:  # else the command ends, and says why
        _say(f"mesh: connection lost: {notice.reason}; trying to reconnect")


def _say_gap(notice: GapNotice) -> None:
    where = f"from {notice.from_seq} " + (f"to {notice.to_seq}" if notice.to_seq else "on")
    meaning = _GAPS.get(notice.reason, notice.reason)  # a newer gateway may have more reasons
    _say(f"gap: events may be missing, sequences {where}: {meaning}")


def _say_lagging(notice: LaggingNotice) -> None:
    _say(f"lagging: {notice.behind:,} sequences behind; catching up from the log")


def _say_live(notice: LiveNotice) -> None:
    if notice.subscription is None:
        _say("live again")


def _say_error(notice: ErrorNotice) -> None:
    if notice.seq is not None:
        _say(f"gap: the event at sequence {notice.seq} can't be read: {notice.error.message}")
    elif isinstance(notice.error, UnauthorizedError):
        return  # ends the command, which says it
    elif notice.subscription is None or notice.error.retryable:
        _say(f"mesh: {notice.error.message}")  # any other ends the command, which says it


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
