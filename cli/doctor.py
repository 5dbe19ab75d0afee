"""`mesh doctor`: whether an installation is as it should be, found out by trying what must fail."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from jarvis_mesh.cli.doctor_findings import Finding
from jarvis_mesh.cli.doctor_gateway import examine_gateway
from jarvis_mesh.cli.doctor_nats import examine_nats
from jarvis_mesh.cli.doctor_places import Place, find_places
from jarvis_mesh.cli.failures import without_secrets
from jarvis_mesh.cli.local import gateway_url
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.config.settings import Settings


def doctor(
    nats: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="NATS as one of its users; may be given again."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The gateway.", show_default="of mesh up")
    ] = None,
) -> None:
    """Check an installation by trying what must fail.

    For every NATS user that it finds: that of --nats, of MESH_NATS_URL and
    MESH_NATS_ADMIN_URL, or all of mesh up. Each line is a check. Nothing that it
    tries leaves an event in the log or changes anything.
    """
    set_up_logs()
    settings = Settings.load()
    places = find_places(nats or [])
    findings = asyncio.run(_examine(settings, places, gateway_url(url)))
    for finding in findings:
        typer.echo(without_secrets(finding.line))
    raise typer.Exit(1 if any(finding.has_failed for finding in findings) else 0)


async def _examine(settings: Settings, places: list[Place], gateway: str) -> list[Finding]:
    return [*await examine_nats(places, settings.log), *await examine_gateway(gateway)]
