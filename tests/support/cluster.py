"""Three real nats-servers that keep one log of three replicas, as a cluster does in earnest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.config.log import STREAM, LogSettings
from jarvis_mesh.config.nats_conf import USERS, render
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema import SystemClock
from jarvis_mesh.schema.errors import MeshError
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES
from tests.support.ports import free_port

NODES = 3
LOG = LogSettings(replicas=NODES)
_CLOCK = SystemClock()


class NoAnswerError(Exception):
    """The stream has no leader now, or none that answers."""


class Cluster:
    """Three nodes. Each can be killed, waited for and started again like any `NatsServer`."""

    def __init__(self, nodes: dict[str, NatsServer]) -> None:
        self._nodes = nodes

    @property
    def nodes(self) -> list[NatsServer]:
        """All nodes, running or not."""
        return list(self._nodes.values())

    def url(self, user: str) -> str:
        """Return the URLs with which *user* connects to any node, with commas between."""
        return ",".join(node.url(user) for node in self.nodes)

    async def stream_leader(self, *, other_than: NatsServer | None = None) -> NatsServer:
        """Return the node that leads the stream, once there is one that answers.

        Args:
            other_than: A former leader, whose successor is waited for.
        """

        def leader(info: dict[str, Any]) -> NatsServer | None:
            name = info["cluster"].get("leader")
            node = self._nodes.get(name) if name else None
            return None if node is other_than else node

        return await self._until(leader, "a stream leader")

    async def whole(self) -> None:
        """Return once both followers of the stream are there and have all of it."""

        def is_whole(info: dict[str, Any]) -> bool:
            peers = info["cluster"].get("replicas", [])
            return len(peers) == NODES - 1 and all(
                peer["current"] and not peer.get("offline") and not peer.get("lag")
                for peer in peers
            )

        await self._until(is_whole, "a whole cluster")

    async def _until(self, pick: Any, what: str, *, within: float = 60.0) -> Any:
        seen: Any = None
        try:
            async with asyncio.timeout(within):
                while True:
                    try:
                        seen = await stream_info(self.url("admin"))
                    except NoAnswerError as error:
                        seen = error
                    else:
                        if found := pick(seen):
                            return found
                    await _CLOCK.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"no {what} within {within} s, but {seen}") from None


async def stream_info(admin_url: str) -> dict[str, Any]:
    """Return what the stream's leader says of it, with the names of leader and replicas.

    Raises:
        NoAnswerError: it says nothing within a second.
    """
    return await _call(admin_url, f"STREAM.INFO.{STREAM}")


async def _call(admin_url: str, what: str) -> dict[str, Any]:
    connection = Client()
    try:
        async with asyncio.timeout(2):
            await connection.connect(
                admin_url.split(","), max_reconnect_attempts=1, error_cb=_ignore
            )
            reply = await connection.request(f"$JS.API.{what}", timeout=1)
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise NoAnswerError(repr(error)) from None
    finally:
        if connection._current_server is not None:
            await connection.close()
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer:
        raise NoAnswerError(answer["error"])
    return answer


async def _ignore(_error: Exception) -> None:
    """Some nodes may be dead: what matters is whether one answers."""


@asynccontextmanager
async def cluster(folder: Path, *, log: LogSettings | None = LOG) -> AsyncIterator[Cluster]:
    """Run a cluster in *folder*, with the stream EVENTS in it; kill all of it afterwards.

    Args:
        log: The stream to make; `None` makes none.
    """
    passwords = {user: new_password() for user in USERS}
    routes = {f"node-{number}": free_port() for number in range(NODES)}
    nodes = {
        name: NatsServer(
            find_binary(),
            _write_conf(folder, name, routes),
            folder / name,
            passwords,
            port=free_port(),
            log=folder / f"{name}.log",
        )
        for name in routes
    }
    try:
        async with asyncio.TaskGroup() as starting:
            for node in nodes.values():
                starting.create_task(node.start())
        running = Cluster(nodes)
        if log is not None:
            await _set_up(running.nodes[0].url("admin"), log)
            await running.whole()
        yield running
    finally:
        for node in nodes.values():
            await end(node)


async def _set_up(admin_url: str, log: LogSettings) -> None:
    """Make the stream, as soon as the nodes know each other."""
    async with asyncio.timeout(30):
        while True:
            try:
                # Asked to make a stream before it has a leader, a cluster says nothing for 10 s.
                await _call(admin_url, "INFO")
                await set_up_log(admin_url, log)
            except (MeshError, NoAnswerError):
                await _CLOCK.sleep(0.1)
            else:
                return


async def end(node: NatsServer) -> None:
    """Kill a nats-server if it runs, even a suspended one; return when it is gone."""
    with suppress(ProcessLookupError, AssertionError):  # it has ended, or never started
        node.kill()
        await node.wait()


def _write_conf(folder: Path, name: str, routes: dict[str, int]) -> Path:
    """Write the project's own nats.conf, made a node's; return where it is."""
    others = [f"nats-route://127.0.0.1:{port}" for port in routes.values()]
    path = folder / f"{name}.conf"
    path.write_text(
        render(BUILT_IN_FAMILIES)
        + f'\nserver_name: "{name}"\n'
        + f'cluster: {{\n  name: "mesh"\n  listen: "127.0.0.1:{routes[name]}"\n'
        + f"  routes: {json.dumps(others)}\n}}\n"
    )
    return path
