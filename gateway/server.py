"""Serving the gateway with uvicorn, and shutting it down in order.

On the way down: tell every client to come back (`closing`, 1012), wait for them to go, stop
listening, close NATS.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.app import create_app
from jarvis_mesh.gateway.certificate import Certificate, open_certificate
from jarvis_mesh.gateway.endpoint import FAREWELL
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.heap import give_back, keep_large_blocks_apart
from jarvis_mesh.gateway.http_protocol import HttpProtocol, Limits
from jarvis_mesh.gateway.tls_protocol import TlsProtocol
from jarvis_mesh.gateway.websocket_protocol import WebSocketProtocol
from jarvis_mesh.gateway.worker_metrics import WorkerMetrics, WorkerPlace
from jarvis_mesh.schema.clock import SystemClock

GC_ALLOCATIONS: Final = 20_000
"""Allocations between two looks of the garbage collector, of which each hundredth goes through
what is older too: 150 ms with 9,000 connections. By default it is 700 and each tenth, which was
40 % of the CPU of a storm. A connection leaves nothing to it (tests/system/test_websocket.py)."""
STOP_WITHIN: Final = 2
"""Seconds for what is left of requests once the clients were drained."""
_POLL: Final = 0.005
_CLOCK: Final = SystemClock()


class _OursOnly(logging.Filter):
    """Passes what uvicorn logs, but for what isn't an error of ours and would fill the log."""

    _NOT_OURS: Final = ("Invalid HTTP request received.", "Unsupported upgrade request.")

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        # Starlette reports the lifespan's own cancellation, when shutting down is hurried.
        return message not in self._NOT_OURS and "CancelledError" not in message[-100:]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and without its pauses: the caller says when to stop.

    uvicorn looks ten times a second whether it should, and then waits a tenth of a second more.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop, now."""
        self.should_exit = True
        self._stopping.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # keeps the Date of answers right
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN):
                while self.server_state.connections or self.server_state.tasks:
                    await _CLOCK.sleep(_POLL)
        for task in tuple(self.server_state.tasks):
            task.cancel()
        await self.lifespan.shutdown()


_OURS_ONLY: Final = _OursOnly()


async def serve(
    settings: Settings,
    sock: socket.socket,
    stopping: asyncio.Event,
    place: WorkerPlace | None = None,
) -> None:
    """Serve on *sock* until *stopping* is set; then drain and return.

    The stream is made or updated first if the settings have an admin URL.

    Args:
        sock: It listens; `sockets.set_up` should have had it before.
        place: Which one this is, where several processes serve.

    Raises:
        SetupError: the log can't be made as the settings say, NATS is too old, or the certificate
            can't be used.
    """
    certificate = open_certificate(settings)
    logging.getLogger("uvicorn.error").addFilter(_OURS_ONLY)
    gc.set_threshold(GC_ALLOCATIONS, 100, 50)
    keep_large_blocks_apart()
    gateway = Gateway(settings)
    shared = None if place is None else WorkerMetrics(place, gateway.metrics.render)
    server = _Server(
        uvicorn.Config(
            create_app(gateway=gateway, shared_metrics=shared),
            lifespan="on",
            http=cast(type[asyncio.Protocol], _connections(settings, certificate)),
            ws=cast(type[asyncio.Protocol], partial(WebSocketProtocol, gateway)),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who may say X-Forwarded-For is for gateway/addresses.py
        )
    )
    async with AsyncExitStack() as around, asyncio.TaskGroup() as tasks:
        if shared is not None:
            await around.enter_async_context(shared.answering())
        serving = tasks.create_task(server.serve(sockets=[sock]))
        told = tasks.create_task(stopping.wait())
        failed = tasks.create_task(gateway.failed.wait())
        watching = tasks.create_task(_watch(certificate))
        tidying = tasks.create_task(give_back(_CLOCK))
        await asyncio.wait({serving, told, failed}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        failed.cancel()
        watching.cancel()
        tidying.cancel()
        await gateway.drain()
        server.stop()
    if gateway.failure is not None:
        raise gateway.failure


def _connections(
    settings: Settings, certificate: Certificate | None
) -> Callable[..., asyncio.BaseProtocol]:
    """Return what makes the protocol of a connection that was accepted."""
    # Streams are ended by the gateway itself, which tells clients so, before they are cut.
    stalled_after = settings.stalled_after + FAREWELL
    limits = Limits(settings.header_timeout, settings.max_header_bytes, stalled_after)
    if certificate is None:
        return partial(HttpProtocol, limits)
    timeout = settings.header_timeout

    def over_tls(**by_uvicorn: Any) -> TlsProtocol:
        return TlsProtocol(HttpProtocol(limits, **by_uvicorn), certificate.context, timeout)

    return over_tls


async def _watch(certificate: Certificate | None) -> None:
    if certificate is not None:
        await certificate.watch(_CLOCK)
