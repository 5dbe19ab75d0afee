"""Caddy with the project's Caddyfile, as a process of the test's own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jarvis_mesh.cli.leftovers import end_with_parent
from jarvis_mesh.schema import SystemClock
from tests.support.certificates import Certificates
from tests.support.ports import free_port

CADDYFILE = Path(__file__).parents[2] / "config" / "Caddyfile"
CADDY = Path(sys.executable).parent / "caddy"
READY_WITHIN = 20.0


@asynccontextmanager
async def caddy(files: Certificates, folder: Path, *gateways: str) -> AsyncIterator[str]:
    """Run Caddy in front of *gateways* (host:port); yield its URL once a gateway answers there.

    Args:
        files: What it shows to clients.
        folder: Where it may keep things.
    """
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CADDY_ADMIN": f"unix/{folder}/caddy.sock",
        "CADDY_SITE": f"https://localhost:{port}",
        "CADDY_TLS": f"tls {files.cert} {files.key}",
        "CADDY_GATEWAYS": " ".join(gateways),
        "CADDY_HTTP_PORT": str(free_port()),
    }
    log = folder / "caddy.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(CADDY, "run", "--config", CADDYFILE),
            env=environment,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            preexec_fn=end_with_parent(),
        )
    try:
        async with asyncio.timeout(READY_WITHIN):
            while not await _answers(files, port):
                assert process.returncode is None, log.read_text()
                await SystemClock().sleep(0.05)
        yield f"https://localhost:{port}"
    finally:
        process.kill()
        await process.wait()


async def _answers(files: Certificates, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=files.client())
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.transport.abort()
