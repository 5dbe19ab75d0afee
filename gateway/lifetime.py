"""The life of one client's connection, whatever it is served over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias

from jarvis_mesh.gateway.sender import Sender

Part: TypeAlias = Coroutine[Any, Any, None]


async def live_out(
    tasks: asyncio.TaskGroup,
    sender: Sender,
    transport: asyncio.Transport | None,
    *,
    listening: Part,
    writing: Part,
    feeding: Part,
    farewell: float,
    hurry: asyncio.Event,
) -> None:
    """Run the parts of a connection until either side has ended it.

    Args:
        tasks: Owns the parts; none of them runs any more afterwards.
        transport: Is cut when the client doesn't take the last words.
        listening: Ends when the client has gone.
        writing: Writes what is queued; ends after the last of it.
        feeding: Keeps the client's feeds going.
        farewell: Seconds for taking the last words when the gateway ends it.
        hurry: Set when there is no more time for that.
    """
    listener = tasks.create_task(listening)
    writer = tasks.create_task(writing)
    ended = tasks.create_task(sender.ended.wait())
    hurried = tasks.create_task(hurry.wait())
    others = (listener, writer, ended, hurried, tasks.create_task(feeding))
    try:
        await asyncio.wait({listener, writer, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            last = {writer, hurried}
            await asyncio.wait(last, timeout=farewell, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if transport is not None and not writer.done():
            transport.abort()  # closing it would wait for a client that takes nothing
        for task in others:
            task.cancel()
