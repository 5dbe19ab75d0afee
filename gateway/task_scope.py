"""The tasks of one client, which has none while it is served live."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskScope:
    """Tasks that end together; the gateway's group owns them.

    Args:
        group: Outlives the client.
    """

    __slots__ = ("_group", "_tasks")

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let *work*, which must not raise, run beside what runs already."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def cancel(self) -> None:
        """Cancel all and return when none of them runs any more, except whoever calls this."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
