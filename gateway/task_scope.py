"""The tasks of one client, which has none while it is served live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class TaskScope:
    """Tasks that end together; the gateway's group owns them.

    Args:
        group: Outlives the client.
    """

    __slots__ = ("_group", "_tasks")

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(
        self,
        work: Coroutine[Any, Any, None],
        *,
        on_failure: Callable[[], None] | None = None,
        outlives: bool = False,
    ) -> asyncio.Task[None]:
        """Let *work* run beside what runs already; an error of ours in it is logged.

        Args:
            on_failure: Called then.
            outlives: Whether it goes on to its end when the client has gone.
        """
        task = self._group.create_task(_guarded(work, on_failure))
        task.add_done_callback(lambda _: work.close())  # one that is cancelled before it began
        if not outlives:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    async def cancel(self) -> None:
        """Cancel what doesn't outlive the client, and return when none of that runs any more."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _guarded(work: Coroutine[Any, Any, None], on_failure: Callable[[], None] | None) -> None:
    """Do *work*; an error in what one client has running must not end the others."""
    try:
        await work
    except Exception:
        log.exception("a client's task failed")
        if on_failure is not None:
            on_failure()
