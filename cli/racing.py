"""Work that an event cuts short: every wait of a program that Ctrl-C should end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def unless(event: asyncio.Event, work: Coroutine[object, object, object]) -> bool:
    """Do *work*, unless *event* is set before it is done: then cancel it.

    Returns:
        Whether the work was done. What it raises is raised as it is.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work)
            watching = tasks.create_task(event.wait())
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            watching.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # one task works, so it is the only one
    return not working.cancelled()
