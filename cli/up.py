"""`mesh up`: everything on one machine by one command."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from jarvis_mesh.cli.data_dir import DataDir, open_data_dir, writing_to
from jarvis_mesh.cli.embedded import NatsServer, check_version, find_binary
from jarvis_mesh.cli.leftovers import end_leftovers
from jarvis_mesh.cli.listening import check_port, listen
from jarvis_mesh.cli.local import data_dir_path
from jarvis_mesh.cli.local_mesh import LocalMesh
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.config.units import format_bytes
from jarvis_mesh.gateway.certificate import open_certificate
from jarvis_mesh.schema.clock import Clock, SystemClock

_SCRIPT: Final = Path(__file__).resolve().parents[1] / "scripts" / "mesh"
"""The command of a clone; there is none where the package is installed."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the flags say, beside the settings."""

    nats_port: int
    data_dir: Path
    monitor: bool


def up(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="The gateway's; 0 picks one.", show_default="3200"),
    ] = None,
    nats_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The NATS server's; 0 picks one.")
    ] = 4222,
    data_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Where the log and the passwords are kept; also MESH_DATA_DIR.",
            show_default="~/.local/share/jarvis-mesh",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Where the gateway listens.", show_default="127.0.0.1")
    ] = None,
    monitor: Annotated[
        bool, typer.Option("--monitor/--no-monitor", help="Publish this machine's metrics.")
    ] = True,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in, without authentication.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; also MESH_CONFIG.")
    ] = None,
) -> None:
    """Start NATS, a gateway and the system monitor on this machine.

    Ctrl-C stops all of it; a second one doesn't wait for clients.
    What was published is still there at the next start.
    """
    set_up_logs()
    settings = Settings.load(config=config, host=host, port=port, insecure=insecure or None)
    if settings.workers > 1:
        log.warning("one process serves: workers are for mesh gateway", workers=settings.workers)
    if monitor and "system" not in settings.families:
        log.warning("no metrics: the family system isn't among MESH_FAMILIES")
        monitor = False
    open_certificate(settings)  # what is wrong with it is said before anything is started
    plan = _Plan(nats_port, data_dir_path(data_dir), monitor)
    asyncio.run(_run(settings, plan, SystemClock()))


async def _run(settings: Settings, plan: _Plan, clock: Clock) -> None:
    """Check what can be checked, and only then start anything."""
    with (
        open_data_dir(plan.data_dir) as data_dir,
        listen(settings.host, settings.port, is_open=settings.may_be_reached) as sock,
    ):
        server = await _prepare_server(settings, data_dir, plan.nats_port, clock)
        with StopSignals().caught() as stop:
            mesh = LocalMesh(
                _limited(settings, data_dir),
                data_dir,
                server,
                sock,
                with_monitor=plan.monitor,
                stop=stop,
                clock=clock,
                on_ready=lambda: _greet(mesh.url, plan.data_dir, settings),
            )
            await mesh.run()


async def _prepare_server(
    settings: Settings, data_dir: DataDir, port: int, clock: Clock
) -> NatsServer:
    binary = find_binary()
    await check_version(binary)
    if ended := await end_leftovers(data_dir.store, clock):
        log.warning("ended what an earlier mesh up left running", servers=ended)
    check_port(port)
    with writing_to(data_dir.path):
        return NatsServer(
            binary,
            data_dir.nats_conf(settings.families),
            data_dir.store,
            data_dir.passwords(),
            port=port,
            log=data_dir.nats_log,
            clock=clock,
        )


def _limited(settings: Settings, data_dir: DataDir) -> Settings:
    """Return the settings with a log that leaves the disk room."""
    room = data_dir.room_for_log()
    if room >= settings.log_max_bytes:
        return settings
    log.warning(
        "the log gets less than it may: half of the disk's free space",
        bytes=format_bytes(room),
        wanted=format_bytes(settings.log_max_bytes),
    )
    return settings.model_copy(update={"log_max_bytes": room})


def _greet(url: str, data_dir: Path, settings: Settings) -> None:
    mesh = "./scripts/mesh" if _SCRIPT.exists() else "mesh"
    lines = [f"jarvis-mesh is up: {url}", "Next, in another terminal:"]
    if data_dir != data_dir_path():
        lines.append(f"  export MESH_DATA_DIR={data_dir}")
    if settings.jwt_secret is not None:
        lines.append(f"  export MESH_TOKEN=$({mesh} token --user me --grant all)")
    lines += [f"  {mesh} sub all", f"  {mesh} run -- python3 -c 'print(1)'"]
    typer.echo("\n".join(lines))
