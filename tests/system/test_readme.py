"""The README's tour, run word for word, but for the ports and the data directory."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITHIN = 30


async def start(environ: dict[str, str], *command: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environ, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )


async def finish(process: Process) -> str:
    """Return the output of a block that ends by itself; it must succeed."""
    async with asyncio.timeout(WITHIN):
        output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


async def end(process: Process) -> str:
    """Press Ctrl-C on a block that goes on for ever; return its output."""
    os.killpg(process.pid, signal.SIGINT)
    async with asyncio.timeout(WITHIN):
        return (await process.communicate())[0].decode()


async def test_every_command_of_the_tour_works(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [kind for _, kind, _ in blocks[:2]] == ["up", "test"]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MESH_")}
    environ["MESH_DATA_DIR"] = str(tmp_path)
    outputs: list[str] = []
    background: list[Process] = []

    up = await start(environ, "./scripts/up", "--port", "0", "--nats-port", "0")
    try:
        await wait_until((tmp_path / "up.json").exists, "up.json", within=20)
        for language, kind, text in blocks[2:]:
            if language == "python":
                outputs.append(await finish(await start(environ, sys.executable, "-c", text)))
            elif kind == "background":
                background.append(await start(environ, "bash", "-ec", text))
            else:
                outputs.append(await finish(await start(environ, "bash", "-ec", text)))
                if kind == "resume":
                    assert "while you were away" in outputs[-1]
        watched = [await end(process) for process in background]
    finally:
        stopped = await end(up)

    assert up.returncode == 0, stopped
    assert "is up: http://127.0.0.1:" in stopped
    assert "hello, mesh" in outputs[0]
    assert "hello, mesh" in watched[0]
    assert any('"status":"thinking"' in output.replace(" ", "") for output in outputs)
    assert any("agent:status" in output and "continue with" in output for output in outputs)
    assert '"cursor":' in outputs[-1]
    assert '"seq":' in outputs[-1]
    assert "\nid: " in outputs[-1]
    assert outputs[-1].endswith("ok\nready\n")
