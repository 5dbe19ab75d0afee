"""`mesh gateway` from outside."""

from __future__ import annotations

import re
import signal
import socket

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.up import run_mesh, start_mesh


async def test_it_serves_by_the_environment_and_ends_by_a_signal(nats_server: NatsServer) -> None:
    process = await start_mesh(
        *("gateway", "--port", "0"), MESH_NATS_URL=nats_server.url("gateway")
    )
    try:
        assert process.stderr is not None
        said = (await process.stderr.readline()).decode()
        while "connected to NATS" not in said:
            said += (await process.stderr.readline()).decode()
        assert re.search(r"http://127\.0\.0\.1:\d+", said)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--host", "0.0.0.0"), "--insecure"),  # noqa: S104 - refused
        (("--config", "/nowhere.toml"), "/nowhere.toml can't be read"),
    ],
)
async def test_what_it_refuses_is_one_line(flags: tuple[str, ...], complaint: str) -> None:
    code, _, stderr = await run_mesh("gateway", "--port", "0", *flags)
    assert code == 1
    assert complaint in stderr
    assert len(stderr.splitlines()) == 1


async def test_a_port_that_is_taken_is_one_line_and_no_worker_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        code, _, stderr = await run_mesh("gateway", "--port", port, "--workers", "2")
    assert code == 1
    assert stderr.startswith(f"mesh: port {port} is taken")
    assert len(stderr.splitlines()) == 1
