"""`scripts/fuzz --minutes N --seed S`: everything at once, and what became of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import re
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS, conf_path
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema import SystemClock
from tests.fuzz.attackers import Attackers, publish_odd_bodies
from tests.fuzz.honest import FORMS, Honest, all_received
from tests.fuzz.honest import USERS as HONEST
from tests.support.gateway_process import GatewayProcess
from tests.support.publishing import publisher
from tests.support.responder import serving
from tests.support.tokens import SECRET

AT_ONCE: Final = 12
"""Hostile sessions."""
WARM_UP: Final = 30.0
"""Seconds until memory has to stay as it is."""
MAX_GROWTH: Final = 24 * 1024**2
LEAVE_WITHIN: Final = 20.0
_WRONG: Final = re.compile(r"Traceback|Exception|Error:|never retrieved|\[(error|critical)")
_CLOCK: Final = SystemClock()


async def fuzz(seconds: float, seed: int, folder: Path) -> list[str]:
    """Fuzz for so long; return what went wrong."""
    passwords = {user: new_password() for user in USERS}
    server = NatsServer(find_binary(), conf_path(), folder / "nats", passwords)
    await server.start()
    log = folder / "gateway.log"
    settings = {
        "NATS_URL": server.url("gateway"),
        "JWT_SECRET": SECRET,
        "AUTH_TIMEOUT": "2",
        "HEADER_TIMEOUT": "2",
        "LOG_MAX_BYTES": "64MiB",
        "STALLED_AFTER": "5",
    }
    running = GatewayProcess(settings, log)
    try:
        await set_up_log(server.url("admin"), LogSettings(max_bytes=64 * 1024**2))
        await running.start()
        wrong = await _throw(seconds, seed, server, running)
    finally:
        await running.kill()
        await server.stop()
    written = log.read_text(errors="replace")
    found = [line for line in written.splitlines() if _WRONG.search(line)]
    return wrong + [f"the gateway logged: {line[:300]}" for line in found[:10]]


async def _throw(
    seconds: float, seed: int, server: NatsServer, running: GatewayProcess
) -> list[str]:
    process = psutil.Process(running.pid)
    attackers = Attackers(running.port, seed)
    async with (
        publisher(server) as events,
        serving(server, "terminal-service", "svc.terminal.*", lambda *_: b"\x9f nonsense"),
        asyncio.TaskGroup() as tasks,
    ):
        honest = Honest(running.url, events)
        watching = [
            tasks.create_task(honest.watch(*each)) for each in zip(HONEST, FORMS, strict=True)
        ]
        while honest.watching < len(FORMS):
            await _CLOCK.sleep(0.02)
        descriptors = process.num_fds()
        publishing = tasks.create_task(honest.publish())
        hostile = [tasks.create_task(attackers.run()) for _ in range(AT_ONCE)]
        hostile.append(tasks.create_task(publish_odd_bodies(server, seed)))
        grown = await _measure(seconds, process, running, attackers, honest)
        for task in (*hostile, publishing):
            task.cancel()
        await asyncio.wait([*hostile, publishing])
        wrong = (
            []
            if await all_received(honest, 10)
            else [f"received {honest.received} of {honest.published}"]
        )
        if not await _have_left(process, descriptors):
            wrong.append(
                f"{process.num_fds()} descriptors are open, at first there were {descriptors}"
            )
        for task in watching:
            task.cancel()
    if running.has_ended:
        wrong.append("the gateway ended")
    if grown > MAX_GROWTH:
        wrong.append(f"memory grew by {grown / 1024**2:.0f} MiB after the first {WARM_UP:g} s")
    wrong += [f"session {name} was never ended by the gateway" for name in attackers.hung]
    return wrong + honest.wrong[:10]


async def _measure(
    seconds: float,
    process: psutil.Process,
    running: GatewayProcess,
    attackers: Attackers,
    honest: Honest,
) -> int:
    """Wait, and say a line now and then; return by how much memory grew after warming up."""
    began, settled = time.monotonic(), 0
    said = 0.0
    while not running.has_ended and not honest.wrong:
        passed = time.monotonic() - began
        rss = process.memory_info().rss
        if not settled and passed >= WARM_UP:
            settled = rss
        if passed - said >= 20 or passed >= seconds:
            said = passed
            lately = sorted(honest.latencies[-1000:]) or [0.0]
            _say(
                f"{passed:5.0f} s  sessions {attackers.sessions.total():6}  "
                f"memory {rss / 1024**2:4.0f} MiB  honest events {honest.published * len(HONEST)}, "
                f"p99 {lately[len(lately) * 99 // 100] * 1000:.0f} ms"
            )
        if passed >= seconds:
            return rss - settled if settled else 0
        await _CLOCK.sleep(0.25)
    return 0


async def _have_left(process: psutil.Process, descriptors: int) -> bool:
    """Return whether the gateway lets go of all that was hostile."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_WITHIN):
            while process.num_fds() > descriptors:
                await _CLOCK.sleep(0.1)
            return True
    return False


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what a script is for


def main() -> int:
    """Fuzz as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    arguments = parser.parse_args()
    _say(f"seed {arguments.seed}")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of sockets that the gateway closed
    with tempfile.TemporaryDirectory() as folder:
        wrong = asyncio.run(fuzz(arguments.minutes * 60, arguments.seed, Path(folder)))
    for each in wrong:
        _say(f"WRONG: {each}")
    _say("nothing was wrong" if not wrong else f"repeat with --seed {arguments.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
