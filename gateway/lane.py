"""A lane: jobs done one at a time, in the order of asking; who asks for the same shares it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import MeshError

Result = TypeVar("Result")


class _Job(Generic[Result]):
    def __init__(self, work: Callable[[], Awaitable[Result]]) -> None:
        self.work = work
        self.waiting: list[asyncio.Future[Result]] = []

    def settle(self, tell: Callable[[asyncio.Future[Result]], object]) -> None:
        for future in self.waiting:
            if not future.done():
                tell(future)


class Lane(Generic[Result]):
    """Does jobs while `run` runs.

    Args:
        rest: After each job the lane rests so many times as long as it waited for others during
            the job. What this process did meanwhile isn't their burden: with many clients to
            serve it may be most of the time.
    """

    def __init__(self, clock: Clock, *, rest: float = 0.0) -> None:
        self._clock = clock
        self._rest = rest
        self._jobs: OrderedDict[Hashable, _Job[Result]] = OrderedDict()
        self._asked = asyncio.Event()

    async def do(self, key: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what *work* returns, once it is its turn.

        A job of the same *key* that waits already is joined; one that has begun is not. Raises
        the `MeshError` that the job raises.
        """
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(work)
        mine: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        job.waiting.append(mine)
        self._asked.set()
        return await mine

    async def run(self) -> None:
        """Do jobs until cancelled; somebody's TaskGroup owns this."""
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                while self._jobs:
                    await self._do_next()
        finally:
            for job in self._jobs.values():
                job.settle(asyncio.Future.cancel)

    async def _do_next(self) -> None:
        _, job = self._jobs.popitem(last=False)
        if all(future.done() for future in job.waiting):
            return  # nobody wants it any more
        began = self._waited()
        try:
            result = await job.work()
        except MeshError as error:
            job.settle(lambda future, error=error: future.set_exception(error))  # type: ignore[misc]
        except BaseException:
            job.settle(asyncio.Future.cancel)
            raise
        else:
            job.settle(lambda future: future.set_result(result))
            if self._rest:  # what failed was nobody's burden
                await self._clock.sleep(self._rest * (self._waited() - began))

    def _waited(self) -> float:
        return self._clock.monotonic() - self._clock.busy()
