"""Calling services through the gateway. No socket here.

A request is sent once: unlike an event it has no id by which a second one would be recognized.

Source: docs/protocol.md, "WebSocket protocol" (`request`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from jarvis_mesh.client.calls import Call, Calls
from jarvis_mesh.schema.json_value import JSON, check_json
from jarvis_mesh.schema.wire import ServiceRequest

MAX_WAITING: Final = 32
"""Requests that wait for their answers at once; the next one waits for one of them. A gateway
lets 64 of one connection wait, and the events need some of these."""
LONGEST: Final = 60.0
"""Seconds that a gateway waits for a service."""


class Requesting:
    """The requests that wait for a service.

    Args:
        calls: Sends them and hands back the answers.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._slots = asyncio.Semaphore(MAX_WAITING)

    async def request(self, service: str, method: str, data: JSON, timeout: float) -> JSON:  # noqa: ASYNC109
        """Return what the service answers.

        Args:
            service: One word of `A-Za-z0-9_-`, as is *method*.
            method: What it is to do.
            data: What JSON can say.
            timeout: Seconds, at most 60; part of the contract, since the gateway is told.

        Raises:
            EventError, TooLargeError: *data* can't be sent.
            UnavailableError: nobody serves that, or there was no connection: nothing was done.
            OutcomeUnknownError, DeadlineError: it was sent, but no answer came.
            MeshError: the gateway or the service refused it, or us.
        """
        check_json(data, "data")
        call = Call(f"{service}.{method}", "it may have been carried out", is_repeatable=False)
        within = min(timeout, LONGEST)
        try:
            async with asyncio.timeout(within) as limit, self._slots:
                await self._calls.connected()
                request = ServiceRequest(
                    service=service, method=method, data=data, timeout_ms=_left_ms(limit)
                )
                with self._calls.asking(call, lambda number: replace(request, id=number)):
                    return await call.answer
        except TimeoutError:
            raise self._calls.too_late(call, within) from None


def _left_ms(limit: asyncio.Timeout) -> int:
    """Return for how long the gateway may wait: not longer than who asked does."""
    until = limit.when() or 0.0
    return max(1, int((until - asyncio.get_running_loop().time()) * 1000))
