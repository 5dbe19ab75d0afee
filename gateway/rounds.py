"""One run for all who ask: whoever comes while a run is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from jarvis_mesh.schema.errors import MeshError

Result = TypeVar("Result")


class Rounds(Generic[Result]):
    """Shares an expensive answer that must be newer than the question.

    Args:
        answer: What one run does. Its `MeshError` goes to all who share the run.
    """

    def __init__(self, answer: Callable[[], Awaitable[Result]]) -> None:
        self._answer = answer
        self._waiting: list[asyncio.Future[Result]] = []
        self._asked = asyncio.Event()

    async def __call__(self) -> Result:
        """Return the result of a run that began after this call."""
        mine: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._asked.set()
        return await mine

    async def run(self) -> None:
        """Serve rounds until cancelled; somebody's TaskGroup owns this."""
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                sharing, self._waiting = self._waiting, []
                await self._serve(sharing)
        finally:
            for future in self._waiting:
                future.cancel()

    async def _serve(self, sharing: list[asyncio.Future[Result]]) -> None:
        try:
            result = await self._answer()
        except MeshError as error:
            for future in sharing:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for future in sharing:
                future.cancel()
            raise
        else:
            for future in sharing:
                if not future.done():
                    future.set_result(result)
