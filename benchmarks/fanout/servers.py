"""The servers that are compared, each started for one case and ended after it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.fanout.accounting import with_children
from benchmarks.fanout.dialects import Dialect
from benchmarks.stage import CLOCK, gateway_process, log_server
from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.cli.leftovers import end_with_parent
from jarvis_mesh.config.nats_conf import GATEWAY
from tests.support.ports import free_port

PEERS = Path(__file__).parent.parent / "peers"
_READY_WITHIN = 15.0


class AbsentError(Exception):
    """The server can't be run here; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running server, as the load generator needs to know it."""

    dialect: Dialect
    port: int
    feed: dict[str, Any]
    """Where and in which form events go in."""
    pids: list[int]
    """All processes whose CPU counts."""
    memory_pid: int
    """The one that holds the connections."""
    credentials: tuple[str, str] = ("", "")


@asynccontextmanager
async def ours(dialect: Dialect) -> AsyncIterator[Server]:
    """Run our gateway and its NATS."""
    async with log_server() as nats, gateway_process(nats.url("gateway")) as gateway:
        pids = with_children([nats.pid, gateway.pid])
        yield Server(dialect, gateway.port, _nats_feed(nats), pids, gateway.pid)


@asynccontextmanager
async def nats_websocket() -> AsyncIterator[Server]:
    """Run nats-server with its own WebSocket listener on the same stream's live copies."""
    port = free_port()
    listener = f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}\n'
    async with log_server(listener) as nats:
        credentials = _credentials(nats, GATEWAY)
        yield Server("nats", port, _nats_feed(nats), [nats.pid], nats.pid, credentials)


@asynccontextmanager
async def socket_io() -> AsyncIterator[Server]:
    """Run Socket.IO 4.8 on Node."""
    folder = PEERS / "socketio"
    node = shutil.which("node")
    if node is None:
        raise AbsentError("no node")
    if not (folder / "node_modules").exists():
        raise AbsentError(f"not installed: npm ci in {folder}")
    async with _announced(node, str(folder / "server.mjs")) as (process, ports):
        feed = {"form": "rooms", "port": ports["feed"]}
        yield Server("socket.io", ports["clients"], feed, [process.pid], process.pid)


@asynccontextmanager
async def starlette() -> AsyncIterator[Server]:
    """Run the plain Starlette gateway and its NATS."""
    port = free_port()
    async with log_server() as nats:
        environment = {"BENCH_NATS_URL": nats.url(GATEWAY)}
        command = (sys.executable, "-m", "benchmarks.peers.starlette_gateway", str(port))
        async with _process(*command, environment=environment) as process:
            await _listening(port)
            pids = [nats.pid, process.pid]
            yield Server("starlette", port, _nats_feed(nats), pids, process.pid)


@asynccontextmanager
async def floor() -> AsyncIterator[Server]:
    """Compile and run the program that only calls send()."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise AbsentError("no cc")
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/send_floor"
        command = (compiler, "-O2", "-o", program, str(PEERS / "send_floor.c"))
        compiling = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
        _, complaint = await compiling.communicate()
        if compiling.returncode:
            raise AbsentError(f"cc fails: {complaint.decode(errors='replace')[:200]}")
        async with _announced(program) as (process, ports):
            feed = {"form": "length", "port": ports["feed"]}
            yield Server("floor", ports["clients"], feed, [process.pid], process.pid)


SERVERS: Mapping[str, Callable[[], AbstractAsyncContextManager[Server]]] = {
    "ours-cbor": lambda: ours("mesh.v1.cbor"),
    "ours-json": lambda: ours("mesh.v1.json"),
    "nats": nats_websocket,
    "socketio": socket_io,
    "starlette": starlette,
    "floor": floor,
}


def _credentials(nats: NatsServer, user: str) -> tuple[str, str]:
    url = urlsplit(nats.url(user))
    assert url.username is not None
    assert url.password is not None
    return url.username, url.password


def _nats_feed(nats: NatsServer) -> dict[str, Any]:
    user, password = _credentials(nats, "admin")
    return {"form": "nats", "port": nats.port, "user": user, "password": password}


@asynccontextmanager
async def _announced(*command: str) -> AsyncIterator[tuple[Process, dict[str, int]]]:
    """Run a program that says its ports in its first line."""
    async with _process(*command) as process:
        assert process.stdout is not None
        async with asyncio.timeout(_READY_WITHIN):
            line = await process.stdout.readline()
        if not line:
            raise AbsentError(f"{command[0]} ends at once")
        yield process, json.loads(line)


@asynccontextmanager
async def _process(
    *command: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **(environment or {})},
        stdin=DEVNULL,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C goes to us alone
        preexec_fn=end_with_parent(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(_READY_WITHIN):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await CLOCK.sleep(0.05)
            else:
                writer.close()
                return
