"""`mesh monitor`: this machine's metrics, for a mesh that runs elsewhere or without its own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from jarvis_mesh.cli.failures import NATS_ADVICE, advising
from jarvis_mesh.cli.local import nats_credentials, nats_url
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.publishers import SystemMonitor, SystemPublisher
from jarvis_mesh.publishers.system_monitor import INTERVAL, MIN_INTERVAL


def monitor(
    interval: Annotated[
        float, typer.Option(min=MIN_INTERVAL, max=86_400, help="Seconds between samples.")
    ] = INTERVAL,
    nats: Annotated[
        str | None, typer.Option(metavar="URL", help="NATS, with user and password.")
    ] = None,
) -> None:
    """Publish this machine's metrics.

    Processor, memory, disk, network and load, as system:metrics, until Ctrl-C.
    """
    set_up_logs()
    asyncio.run(_run(nats, interval))


async def _run(nats: str | None, interval: float) -> None:
    with StopSignals().caught() as stop:
        async with AsyncExitStack() as stack:
            with advising(NATS_ADVICE):
                connecting = SystemPublisher.connect(
                    nats_url(SystemPublisher.source, nats),
                    credentials=nats_credentials(SystemPublisher.source, nats),
                    timeout=interval,
                )
                publisher = await stack.enter_async_context(connecting)
            typer.echo(f"Publishing this machine's metrics every {interval:g} s; Ctrl-C stops.")
            await unless(stop.asked, SystemMonitor(publisher, interval=interval).run())
