"""What every benchmark stands on: a nats-server and a gateway, as processes of their own."""

from __future__ import annotations

import os
import resource
import tempfile
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
from tests.support.gateway_process import GatewayProcess

CLOCK = SystemClock()
_MIB = 1024 * 1024


class MeasuredGateway(GatewayProcess):
    """A gateway whose memory and CPU time are looked at."""

    def rss_mib(self) -> float:
        """Return how much memory it has."""
        return psutil.Process(self.pid).memory_info().rss / _MIB

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        return cpu_seconds(self.pid)

    def metric(self, name: str) -> float:
        """Return one figure of its /metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise LookupError(name)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Stage:
    """A log and a gateway."""

    def __init__(self, nats: NatsServer, gateway: MeasuredGateway) -> None:
        self.nats = nats
        self.gateway = gateway


@asynccontextmanager
async def log_server(more_conf: str = "") -> AsyncIterator[NatsServer]:
    """Run a nats-server with an empty log, with *more_conf* after the project's nats.conf."""
    with tempfile.TemporaryDirectory() as folder:
        passwords = {user: new_password() for user in USERS}
        conf = _write_conf(Path(folder), more_conf)
        nats = NatsServer(find_binary(), conf, Path(folder, "store"), passwords)
        try:
            await nats.start()
            await set_up_log(nats.url("admin"), LogSettings())
            yield nats
        finally:
            await nats.stop()


def _write_conf(folder: Path, more: str) -> Path:
    conf = folder / "nats.conf"
    conf.write_text(conf_path().read_text() + more)
    return conf


@asynccontextmanager
async def gateway_process(nats_url: str, **settings: str) -> AsyncIterator[MeasuredGateway]:
    """Run a gateway; *settings* are MESH_* variables without that prefix."""
    gateway = MeasuredGateway({"NATS_URL": nats_url, **settings}, Path(os.devnull))
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.kill()


@asynccontextmanager
async def stage(**settings: str) -> AsyncIterator[Stage]:
    """Run both, the gateway with *settings*."""
    async with log_server() as nats, gateway_process(nats.url("gateway"), **settings) as gateway:
        yield Stage(nats, gateway)


def open_many_files() -> None:
    """Allow as many sockets as the system does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
