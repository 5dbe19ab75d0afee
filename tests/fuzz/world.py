"""What is fuzzed: NATS, a gateway that wants tokens, services of nonsense, honest clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS, conf_path
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.publishers import EventPublisher
from tests.fuzz.honest import A_DAY, FORMS, Honest, Rounds
from tests.fuzz.publishers import HostilePublisher, answer_nonsense
from tests.fuzz.watch import Watch
from tests.support.cluster import end
from tests.support.gateway_process import GatewayProcess
from tests.support.ports import free_port
from tests.support.responder import serving
from tests.support.tokens import SECRET, token_for

SETTINGS: Final = {
    **{"JWT_SECRET": SECRET, "HEARTBEAT": "1s", "AUTH_TIMEOUT": "3s", "STALLED_AFTER": "5s"},
    "LOG_MAX_BYTES": "64MiB",
}
HONEST: Final = 6


@dataclass
class World:
    """Everything that takes part."""

    port: int
    watch: Watch
    tokens: list[str]
    """What attackers have: valid, with much granted."""
    clients: list[Honest]
    rounds: Rounds
    publisher: HostilePublisher


@asynccontextmanager
async def world(folder: Path, dice: random.Random) -> AsyncIterator[World]:
    """Run it in *folder*; the honest clients watch already, the hostile ones are to come."""
    monitor = free_port()
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(_nats(folder, monitor))
        log = folder / "gateway.log"
        gateway = GatewayProcess(
            SETTINGS | {"NATS_URL": nats.url("gateway"), "NATS_ADMIN_URL": nats.url("admin")}, log
        )
        stack.push_async_callback(gateway.kill)
        await gateway.start()
        answers = random.Random(dice.random())
        await stack.enter_async_context(
            serving(nats, "terminal-service", "svc.terminal.*", lambda *_: answer_nonsense(answers))
        )
        publisher = await stack.enter_async_context(
            EventPublisher("agent-service", nats.url("agent-service"))
        )
        clients = [
            Honest(f"honest{number}", FORMS[number % len(FORMS)], gateway.url)
            for number in range(HONEST)
        ]
        yield World(
            gateway.port,
            Watch(gateway, log, f"http://127.0.0.1:{monitor}"),
            _tokens(),
            clients,
            Rounds(publisher, clients),
            HostilePublisher(nats, random.Random(dice.random())),
        )


def _tokens() -> list[str]:
    everything = {"publish": ["all"], "request": [">"], "expires_in": A_DAY}
    return [
        token_for("mallory", expires_in=A_DAY),
        token_for("eve", subscribe=["all"], **everything),  # type: ignore[arg-type]
        token_for("trudy", subscribe=["user:trudy", "event:agent:**", "shared"], **everything),  # type: ignore[arg-type]
    ]


@asynccontextmanager
async def _nats(folder: Path, monitor: int) -> AsyncIterator[NatsServer]:
    conf = folder / "nats.conf"
    conf.write_text(f'{conf_path().read_text()}\nhttp: "127.0.0.1:{monitor}"\n')
    server = NatsServer(
        find_binary(), conf, folder / "nats", {user: new_password() for user in USERS}
    )
    try:
        await server.start()
        await set_up_log(server.url("admin"), LogSettings())
        yield server
    finally:
        await end(server)


@asynccontextmanager
async def all_running(made: World) -> AsyncIterator[None]:
    """Have the honest clients watch, and their publisher publish."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(client.run()) for client in made.clients]
        try:
            async with asyncio.timeout(30):
                for client in made.clients:
                    await client.is_open.wait()
            yield
        finally:
            for task in running:
                task.cancel()
