"""What every benchmark stands on: a nats-server and a gateway, as processes of their own."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS, conf_path
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema.clock import SystemClock

CLOCK = SystemClock()
_MIB = 1024 * 1024


class GatewayProcess:
    """`mesh gateway`, started and ended by the benchmark."""

    def __init__(self, nats: NatsServer, port: int, **settings: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._settings = {
            "MESH_NATS_URL": nats.url("gateway"),
            "MESH_PORT": str(port),
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> psutil.Process:
        """The running process, for its memory and CPU time."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MESH_")}
        self._process = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "mesh",
            "gateway",
            env={**inherited, **self._settings},
            stderr=asyncio.subprocess.DEVNULL,
        )
        while not await asyncio.to_thread(_is_ready, f"{self.url}/readyz"):
            await CLOCK.sleep(0.02)

    async def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def rss_mib(self) -> float:
        """Return how much memory it has."""
        return self.process.memory_info().rss / _MIB

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        times = self.process.cpu_times()
        return times.user + times.system

    def metric(self, name: str) -> float:
        """Return one figure of its /metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise LookupError(name)


class Stage:
    """A log and a gateway."""

    def __init__(self, nats: NatsServer, gateway: GatewayProcess) -> None:
        self.nats = nats
        self.gateway = gateway


@asynccontextmanager
async def log_server() -> AsyncIterator[NatsServer]:
    """Run a nats-server with an empty log."""
    with tempfile.TemporaryDirectory() as folder:
        passwords = {user: new_password() for user in USERS}
        nats = NatsServer(find_binary(), conf_path(), Path(folder), passwords)
        try:
            await nats.start()
            await set_up_log(nats.url("admin"), LogSettings())
            yield nats
        finally:
            await nats.stop()


@asynccontextmanager
async def gateway_process(nats: NatsServer, **settings: str) -> AsyncIterator[GatewayProcess]:
    """Run a gateway."""
    gateway = GatewayProcess(nats, _free_port(), **settings)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.kill()


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Run both."""
    async with log_server() as nats, gateway_process(nats) as gateway:
        yield Stage(nats, gateway)


def open_many_files() -> None:
    """Allow as many sockets as the system does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False
