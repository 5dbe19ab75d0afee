"""`mesh gateway`: a gateway alone, with its settings from the environment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import structlog
import typer

from jarvis_mesh.cli.listening import listen, url_of
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.cli.racing import unless
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.cli.workers import run_workers
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.certificate import open_certificate
from jarvis_mesh.gateway.server import serve
from jarvis_mesh.schema.clock import SystemClock

log = structlog.get_logger(__name__)


def gateway(
    host: Annotated[
        str | None, typer.Option(help="Where to listen.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="0 picks a free one.", show_default="3200"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that serve, one a core.", show_default="1"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in, without authentication.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve over TLS with this certificate (PEM)."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key of that certificate (PEM).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; also MESH_CONFIG.")
    ] = None,
) -> None:
    """Start a gateway alone, for a NATS that runs already.

    Settings come from flags, then MESH_* variables, then the TOML file.
    MESH_NATS_URL says where NATS is, as its user gateway; only with
    MESH_NATS_ADMIN_URL does this gateway make or update the log.
    """
    set_up_logs()
    settings = Settings.load(
        config=config,
        host=host,
        port=port,
        workers=workers,
        insecure=insecure or None,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    is_tls = open_certificate(settings) is not None  # said once, before any worker is started
    asyncio.run(_run(settings, is_tls=is_tls))


async def _run(settings: Settings, *, is_tls: bool) -> None:
    with (
        StopSignals().caught() as stop,
        listen(settings.host, settings.port, is_open=settings.may_be_reached) as sock,
    ):
        settings = settings.model_copy(update={"port": sock.getsockname()[1]})
        url = url_of(sock, tls=is_tls)
        if settings.workers > 1:
            log.info("listening", url=url, workers=settings.workers)
            await run_workers(settings, sock, stop, SystemClock())
            return
        log.info("listening", url=url)
        await unless(stop.hurry, serve(settings, sock, stop.asked))
