"""`mesh pub`: one event from the command line."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Annotated, Final

import msgspec
import typer

from jarvis_mesh.cli.failures import NATS_ADVICE, advising
from jarvis_mesh.cli.local import nats_credentials, nats_url
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.config.nats_conf import ADMIN, SOURCES
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.publishers import EventPublisher, Filing, Published
from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.event import JSON, Priority
from jarvis_mesh.schema.types import TypeRegistry

SOURCE: Final = "cli"
_TIMEOUT: Final = 10.0
"""Seconds; long enough for a nats-server that restarts."""
_CONNECT_TIMEOUT: Final = 3.0


def pub(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as agent:created.")],
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD|-", help="JSON; - reads it from standard input.")
    ] = "{}",
    source: Annotated[str, typer.Option(help="Which program says so.")] = SOURCE,
    entity: Annotated[
        str | None,
        typer.Option(help="What it is about.", show_default="from the payload"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose event it is.")] = None,
    session: Annotated[str | None, typer.Option(help="The session of work it is part of.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="How urgent it is.")] = None,
    nats: Annotated[
        str | None, typer.Option(metavar="URL", help="NATS, with user and password.")
    ] = None,
) -> None:
    """Publish one event.

    It prints the event's id and its sequence once the log has it. Any type of
    the log's families is taken; a built-in one must have the payload that it
    requires.
    """
    set_up_logs()
    types = TypeRegistry(Settings.load().families, allow_unregistered=True)
    filing = Filing(entity=entity, user=user, session=session, priority=priority)
    publisher = EventPublisher(
        source,
        nats_url(ADMIN, nats),
        # In production admin publishes nothing; an nkey of the source's own does.
        credentials=nats_credentials(source if source in SOURCES else ADMIN, nats),
        types=types,
        connect_timeout=_CONNECT_TIMEOUT,
    )
    published = asyncio.run(_publish(publisher, event_type, _read_payload(payload), filing))
    typer.echo(f"{published.id} {published.seq}")


async def _publish(
    publisher: EventPublisher, event_type: str, payload: JSON, filing: Filing
) -> Published:
    async with AsyncExitStack() as stack:
        with advising(NATS_ADVICE):
            await stack.enter_async_context(publisher)
        return await publisher.publish(event_type, payload, timeout=_TIMEOUT, **filing)


def _read_payload(text: str) -> JSON:
    try:
        return msgspec.json.decode(sys.stdin.buffer.read() if text == "-" else text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise EventError(
            f'the payload isn\'t JSON: {error}; write it like \'{{"agentId": "a1"}}\''
        ) from None
