"""A Caddy with the project's Caddyfile before gateways."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from jarvis_mesh.cli.leftovers import end_with_parent
from tests.support.certificates import Certificates
from tests.support.ports import free_port
from tests.support.waiting import wait_until

CADDYFILE = Path(__file__).parents[2] / "config" / "Caddyfile"


@asynccontextmanager
async def caddy(files: Certificates, folder: Path, *gateways: str) -> AsyncIterator[str]:
    """Run Caddy before *gateways* (`host:port`); yield its URL."""
    port = free_port()
    environ = {
        **os.environ,
        "CADDY_TLS": f"tls {files.cert} {files.key}",
        "CADDY_GATEWAYS": " ".join(gateways),
        "CADDY_HTTP_PORT": str(free_port()),
        "CADDY_HTTPS_PORT": str(port),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).parent / "caddy", "run"),
        *("--config", CADDYFILE, "--adapter", "caddyfile"),
        env=environ,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        preexec_fn=end_with_parent(),
    )
    try:
        await wait_until(lambda: process.returncode is not None or _answers(port), "Caddy")
        yield f"https://localhost:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
