"""The life of a connection that an ASGI server writes to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias

from jarvis_mesh.gateway.outbox import QueuedOutbox

Part: TypeAlias = Coroutine[Any, Any, None]


async def live_out(
    outbox: QueuedOutbox, transport: asyncio.Transport | None, *parts: Part, writing: Part
) -> None:
    """Run *parts* and *writing* until one of them ends, or the outbox is aborted.

    Args:
        outbox: What is written.
        transport: Is cut when the client doesn't take the last words.
        parts: End when the client has gone.
        writing: Writes what is queued; ends after the last of it.
    """
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(writing)
        aborted = tasks.create_task(outbox.aborted.wait())
        running = {writer, aborted, *map(tasks.create_task, parts)}
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if transport is not None and not writer.done():
                transport.abort()  # closing it would wait for a client that takes nothing
            for task in running:
                task.cancel()
