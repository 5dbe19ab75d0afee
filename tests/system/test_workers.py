"""`mesh gateway --workers 2`: real processes, killed and stopped as it happens."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import websockets

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.cli.listening import listen
from tests.conftest import StartNats
from tests.support.followers import open_socket
from tests.support.gateway_process import GatewayProcess
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher
from tests.support.up import run_mesh
from tests.support.waiting import wait_until


class Workers(GatewayProcess):
    """A gateway of two workers."""

    def __init__(self, nats_server: NatsServer, folder: Path, log: Path, **settings: str) -> None:
        defaults = {
            "WORKERS": "2",
            "NATS_URL": nats_server.url("gateway"),
            "NATS_ADMIN_URL": nats_server.url("admin"),
        }
        super().__init__({**defaults, **settings}, log)
        self._environment["TMPDIR"] = str(folder)
        self._log_path = log

    @property
    def log(self) -> str:
        """What it said."""
        return self._log_path.read_text()

    def processes(self) -> list[psutil.Process]:
        """Return the workers that run."""
        children = psutil.Process(self.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def worker_of(self, client: PlainClient) -> psutil.Process:
        """Return the worker that serves *client*."""
        port = client.socket.local_address[1]
        for worker in self.processes():
            if any(each.raddr and each.raddr.port == port for each in worker.net_connections()):
                return worker
        raise AssertionError("no worker has this connection")

    async def wholly_ready(self) -> None:
        """Return when both workers are."""
        await wait_until(lambda: self.log.count("connected to NATS") == 2, "both connected")

    async def ended(self) -> int:
        """Return the exit code once it has ended by itself."""
        assert self._process is not None, "not started"
        async with asyncio.timeout(5):
            return await self._process.wait()

    async def metrics(self) -> dict[str, float]:
        """Return what /metrics shows."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(5):
            text = (await reader.read()).decode().partition("\r\n\r\n")[2]
        writer.close()
        lines = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    async def one_client_each(self, stack: AsyncExitStack) -> tuple[PlainClient, PlainClient]:
        """Return two clients that aren't served by the same worker."""
        first = await stack.enter_async_context(connect(self.url))
        while True:
            second = await stack.enter_async_context(connect(self.url))
            if self.worker_of(second) != self.worker_of(first):
                return first, second


@pytest.fixture
def folder() -> Iterator[Path]:
    """What the workers share is in here; the name is short enough for sockets."""
    with TemporaryDirectory() as path:
        yield Path(path)


@asynccontextmanager
async def running(workers: Workers) -> AsyncIterator[Workers]:
    """Run a gateway until both its workers are ready; kill what is left of it."""
    try:
        await workers.start()
        await workers.wholly_ready()
        yield workers
    finally:
        await workers.kill()


@pytest.fixture
async def workers(nats_server: NatsServer, folder: Path, tmp_path: Path) -> AsyncIterator[Workers]:
    """A gateway of two workers that are ready."""
    async with running(Workers(nats_server, folder, tmp_path / "gateway.log")) as started:
        yield started


async def test_connections_are_spread_and_any_worker_tells_about_all(workers: Workers) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(60):
            client = await stack.enter_async_context(connect(workers.url))
            await client.expect("welcome")
        for _ in range(8):
            found = await workers.metrics()
            shares = [found[f'mesh_connections{{worker="{number}"}}'] for number in (1, 2)]
            assert sum(shares) == 60
            assert min(shares) > 10
            assert found["mesh_workers"] == 2
    assert sorted(re.findall(r"connected to NATS +worker=(\d)", workers.log)) == ["1", "2"]


async def test_a_killed_worker_is_replaced_and_its_clients_lose_nothing(
    workers: Workers, events: TestPublisher
) -> None:
    async with AsyncExitStack() as stack:
        unlucky, lucky = await workers.one_client_each(stack)
        for client in (unlucky, lucky):
            await client.subscribe("all")
        seqs = await events.publish_many(5)
        await unlucky.events(5)
        killed = workers.worker_of(unlucky)
        killed.kill()
        seqs += await events.publish_many(5)
        assert [message["seq"] for message in await lucky.events(10)] == seqs
        # Those whom the kernel gives to the dead worker's socket wait for the next one.
        others = [await stack.enter_async_context(connect(workers.url)) for _ in range(10)]
        with pytest.raises(websockets.ConnectionClosed):
            await unlucky.next()
        await others[0].subscribe("all", since=f"{epoch_of(lucky)}:{seqs[4]}")
        assert [message["seq"] for message in await others[0].events(5)] == seqs[5:]
        for client in others:
            await client.still_lives()
        assert killed not in workers.processes()
        assert len({workers.worker_of(client).pid for client in (lucky, *others)}) == 2
        assert (await workers.metrics())["mesh_workers"] == 2
    assert re.search(r"starting it again +code=-9 worker=\d", workers.log)


def is_alive(process: psutil.Process) -> bool:
    """Say whether it still does something; nobody may care to reap it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def epoch_of(client: PlainClient) -> str:
    cursor: str = client.received[0]["cursor"]
    return cursor.partition(":")[0]


async def test_all_workers_tell_their_clients_and_end(workers: Workers, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        clients = await workers.one_client_each(stack)
        processes = workers.processes()
        os.killpg(workers.pid, signal.SIGTERM)  # each gets it, as from systemd
        for client in clients:
            await client.expect("closing", reason="draining")
            assert await client.close_code() == 1012
    assert await workers.ended() == 0
    assert not any(is_alive(process) for process in processes)
    assert "Traceback" not in workers.log
    assert workers.log.count("draining") == 2
    assert os.listdir(folder) == []


async def test_a_second_signal_hurries(
    nats_server: NatsServer, folder: Path, tmp_path: Path, events: TestPublisher
) -> None:
    gateway = Workers(nats_server, folder, tmp_path / "gateway.log", DRAIN="10m")
    async with (
        running(gateway),
        connect(
            gateway.url, sock=await open_socket(gateway.url), max_queue=1, ping_interval=None
        ) as stuck,
    ):
        await stuck.subscribe("all")
        noise = os.urandom(25_000).hex()
        for _ in range(40):  # 2 MB, more than the sockets between them take
            await events.publish(payload={"agentId": "a1", "noise": noise})
        os.killpg(gateway.pid, signal.SIGINT)  # as from a terminal
        await wait_until(lambda: len(gateway.processes()) == 1, "the end of the other one")
        for _ in range(6):  # none waits in the socket of who is gone
            assert (await gateway.metrics())["mesh_workers"] == 1
        os.killpg(gateway.pid, signal.SIGINT)
        assert await gateway.ended() == 0
    assert "killing a worker" in gateway.log
    assert "Traceback" not in gateway.log


async def test_no_worker_survives_its_parent_and_the_port_is_free(workers: Workers) -> None:
    left = workers.processes()
    left[0].suspend()  # not even one that hangs
    await workers.kill()
    await wait_until(lambda: not any(is_alive(process) for process in left), "their end")
    listen("127.0.0.1", workers.port, is_open=False).close()


async def test_what_no_worker_can_start_with_is_one_line(start_nats: StartNats) -> None:
    server = await start_nats(None)
    code, _, stderr = await run_mesh(
        *("gateway", "--port", "0", "--workers", "2"),
        MESH_NATS_URL=server.url("gateway"),
        MESH_NATS_ADMIN_URL=server.url("admin"),
        MESH_LOG_REPLICAS="3",
    )
    assert code == 1
    [complaint] = [line for line in stderr.splitlines() if line.startswith("mesh:")]
    assert "can't be made: replicas" in complaint
    assert "Traceback" not in stderr
