"""`mesh monitor`, as a shell runs it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.log_reading import read_log
from tests.support.mesh_command import announce, environment, mesh, start_mesh


async def test_metrics_are_published_until_a_signal(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    announce(nats_server, tmp_path)
    async with (
        asyncio.timeout(20),
        start_mesh("monitor", "--interval", "0.1", env=environment(tmp_path)) as process,
    ):
        assert process.stdout is not None
        assert b"every 0.1 s" in await process.stdout.readline()
        while len(await read_log(nats_server, "system.>")) < 4:
            pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    types = [item.event.type for item in await read_log(nats_server)]
    assert types[:3] == ["system:status", "system:metrics", "system:metrics"]


async def test_without_a_mesh_it_says_so(tmp_path: Path) -> None:
    ended = await mesh("monitor", "--nats", "nats://127.0.0.1:9", env=environment(tmp_path))
    assert ended.code == 1
    assert "can't be reached" in ended.stderr
    assert ended.stderr.endswith("; start `mesh up`, or name one by --nats\n")
