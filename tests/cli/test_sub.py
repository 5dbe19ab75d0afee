"""`mesh sub`, as a shell runs it, against a gateway that does what the test says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from jarvis_mesh.cli.output import Output
from jarvis_mesh.cli.sub import _say_gap
from jarvis_mesh.client import GapNotice, Subscription
from tests.support.mesh_command import MESH, TypedInto, environment, mesh, start_mesh
from tests.support.scripted_gateway import (
    ScriptedGateway,
    cursor,
    make_event,
    scripted_gateway,
)
from tests.support.waiting import wait_until

TOKEN = ".".join(("eyJhbGciOiJIUzI1NiJ9", "c2VjcmV0", "U0VDUkVU"))
FIRST, SECOND = make_event("a1", n=1), make_event("a2", n=2)


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway() as running:
        yield running


@pytest.fixture
def env(gateway: ScriptedGateway, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, MESH_URL=gateway.url)


async def test_it_ends_after_so_many_events_and_says_where_to_go_on(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(mesh("sub", "event:agent:**", "shared", "--count=2", env=env))
        visitor = await gateway.visitor()
        request = await visitor.accept(10)
        await visitor.events((11, FIRST), (14, SECOND), (15, FIRST))
    assert request["channels"] == ["event:agent:**", "shared"]
    assert "since" not in request
    result = ended.result()
    assert (result.code, result.stderr) == (0, f"cursor: {cursor(14)}\n")
    one, two = result.stdout.decode().splitlines()
    assert one.endswith("agent:updated        agent-service/a1  n=1")
    assert two.endswith("agent:updated        agent-service/a2  n=2")


async def test_json_lines_carry_each_events_cursor(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        command = mesh("sub", "all", "--json", "--count=2", "--since", cursor(3), env=env)
        ended = tasks.create_task(command)
        visitor = await gateway.visitor()
        request = await visitor.accept(3)
        await visitor.event(11, FIRST, request["sub"])
        await visitor.event(14, SECOND, request["sub"])
    assert request["since"] == cursor(3)
    lines = [json.loads(line) for line in ended.result().stdout.splitlines()]
    assert lines == [
        {"cursor": cursor(11), "event": FIRST.to_map()},
        {"cursor": cursor(14), "event": SECOND.to_map()},
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_the_cursor_though_no_event_came(
    gateway: ScriptedGateway, env: dict[str, str], number: signal.Signals
) -> None:
    async with start_mesh("sub", "all", "--since=10m", env=env) as process:
        visitor = await gateway.visitor()
        request = await visitor.accept(10)
        assert request["since"] == {"seconds": 600}
        await visitor.say("live", sub=request["sub"], cursor=cursor(12), replayed=0)
        await visitor.say("heartbeat", cursor=cursor(20))
        await visitor.say("error", code="internal", message="heard\x1b", retryable=True)
        assert process.stderr is not None
        # What was said after the heartbeat is there, so the heartbeat was heard too.
        assert await process.stderr.readline() == b"mesh: heard\\x1b\n"
        process.send_signal(number)
        stdout, stderr = await process.communicate()
        assert (process.returncode, stdout) == (0, b"")
        assert stderr.decode() == f"cursor: {cursor(20)}\n"


async def test_what_happens_to_the_feed_is_said_on_stderr(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(mesh("sub", "all", "--count=1", env=env))
        visitor = await gateway.visitor()
        name = (await visitor.accept(1))["sub"]
        await visitor.say("lagging", behind=12345)
        await visitor.say("live", cursor=cursor(2))
        about = {"sub": name, "reason": "unreadable", "cursor": cursor(3)}
        await visitor.say("gap", **about, **{"from": 3, "to": 3})
        await visitor.close(1012, "draining")
        visitor = await gateway.visitor()
        assert (await visitor.accept(3))["since"] == cursor(3)
        await visitor.event(4, FIRST, "s2")
    assert ended.result().stderr.splitlines() == [
        "lagging: 12,345 sequences behind; catching up from the log",
        "live again",
        "gap: events may be missing, sequences from 3 to 3: that one isn't a valid event "
        "(unreadable)",
        "mesh: connection lost: closed by the gateway (1012 draining); trying to reconnect",
        "mesh: connected again",
        f"cursor: {cursor(4)}",
    ]


@pytest.mark.parametrize(
    ("reason", "to", "line"),
    [
        ("expired", 3, "to 3: the log no longer has them (expired)"),
        ("epoch", None, "on: the cursor is of another log, and this one was made anew (epoch); "),
        ("reset", None, "on: the log has lost its end, as by a power loss (reset); "),
        ("unreadable", 2, "to 2: that one isn't a valid event (unreadable)"),
        ("of tomorrow", 3, "to 3: of tomorrow"),
    ],
)
def test_each_reason_of_a_gap_is_explained(
    reason: str, to: int | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    subscription = cast("Subscription", None)
    _say_gap(GapNotice(subscription, 2, to, reason, cursor(3)))
    ending = "" if to else "it is shown from its start"
    about = "gap: events may be missing, sequences from 2 "
    assert capsys.readouterr().err == f"{about}{line}{ending}\n"


async def test_a_refused_channel_is_one_line(gateway: ScriptedGateway, env: dict[str, str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(mesh("sub", "nonsense:x", env=env))
        visitor = await gateway.visitor()
        request = await visitor.expect("subscribe")
        about = {"sub": request["sub"], "code": "bad_channel", "retryable": False}
        await visitor.say("error", **about, message="'nonsense:x' is no channel")
    result = ended.result()
    assert (result.code, result.stderr) == (1, "mesh: 'nonsense:x' is no channel\n")


@pytest.mark.parametrize("way", ["option", "variable", "file"])
async def test_the_gateway_is_shown_the_token(
    gateway: ScriptedGateway, env: dict[str, str], tmp_path: Path, way: str
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    options = ["--token", TOKEN] if way == "option" else []
    more = {"variable": {"MESH_TOKEN": TOKEN}, "file": {"MESH_TOKEN_FILE": str(file)}}.get(way, {})
    gateway.auth = {"auth": "ok", "user": "alice", "expires": 4e9}
    async with asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(mesh("sub", "all", "--count=1", *options, env=env | more))
        visitor = await gateway.visitor()
        await visitor.accept(0)
        await visitor.event(1, FIRST)
    assert visitor.authorization == f"Bearer {TOKEN}"
    assert ended.result().stderr == f"cursor: {cursor(1)}\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "the gateway wants a token"),
        (["--token", TOKEN], "the gateway at ws://{} refuses the token: it has expired"),
    ],
)
async def test_without_a_good_token_it_says_how_to_get_one(
    gateway: ScriptedGateway, env: dict[str, str], options: list[str], reason: str
) -> None:
    gateway.refusal = "it has expired"
    result = await mesh("sub", "all", *options, env=env)
    address = gateway.url.removeprefix("http://") + "/v1/ws"
    advice = "`mesh token --user U` makes one; set MESH_TOKEN to it"
    assert (result.code, result.stderr) == (1, f"mesh: {reason.format(address)}; {advice}\n")


async def test_a_token_that_expires_ends_it_with_one_line_and_the_cursor(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(mesh("sub", "all", env=env | {"MESH_TOKEN": TOKEN}))
        visitor = await gateway.visitor()
        await visitor.accept(0)
        await visitor.event(1, FIRST)
        await visitor.reject("the token has expired")
    result = ended.result()
    assert result.code == 1
    assert result.stdout.count(b"\n") == 1
    assert result.stderr.splitlines()[-2:] == [
        f"cursor: {cursor(1)}",
        "mesh: the token has expired; `mesh token --user U` makes one; set MESH_TOKEN to it",
    ]


async def test_what_is_no_token_is_refused_without_being_shown(env: dict[str, str]) -> None:
    result = await mesh("sub", "all", env=env | {"MESH_TOKEN": "two words"})
    assert (result.code, result.stderr.count("\n")) == (1, 1)
    assert "token" in result.stderr
    assert "two words" not in result.stderr


async def test_without_a_gateway_it_says_how_to_start_one(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = await mesh("sub", "all", "--url", f"http://127.0.0.1:{port}", env=env)
    assert result.code == 1
    assert result.stderr.count("\n") == 1
    assert "mesh up" in result.stderr


async def test_a_since_that_is_none_is_refused_before_connecting(env: dict[str, str]) -> None:
    result = await mesh("sub", "all", "--since=tomorrow", env=env | {"MESH_URL": "http://[::1]:1"})
    assert result.code == 1
    assert "--since 'tomorrow'" in result.stderr


async def test_a_reader_that_leaves_ends_it_quietly(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    read_end, write_end = os.pipe()
    command = (*MESH, "sub", "all", "--json")
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=write_end, stderr=asyncio.subprocess.PIPE
    )
    os.close(write_end)
    try:
        visitor = await gateway.visitor()
        await visitor.accept(0)
        await visitor.event(1, FIRST)
        line = await asyncio.to_thread(os.read, read_end, 65_536)
        assert json.loads(line)["cursor"] == cursor(1)
        os.close(read_end)
        await visitor.event(2, SECOND)
        _, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, stderr) == (0, f"cursor: {cursor(1)}\n".encode())


async def test_in_a_terminal_it_is_coloured_one_line_an_event_and_cannot_be_fooled(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    hostile = make_event("a1", text="\x1b]0;owned\x07" + "x" * 300)
    async with TypedInto("sub", "all", env=env | {"TERM": "xterm-256color"}) as terminal:
        visitor = await gateway.visitor()
        await visitor.accept(0)
        await visitor.event(1, hostile)
        await wait_until(lambda: b"\n" in terminal.shown, "a line")
        assert b"\x1b[" in terminal.shown
        assert b"\x1b]" not in terminal.shown
        assert b"\x07" not in terminal.shown
        terminal.type(b"\x03")
        assert (await terminal.ended()).code == 0
        await wait_until(lambda: f"cursor: {cursor(1)}".encode() in terminal.shown)
        assert terminal.shown.count(b"\n") == 2


async def test_output_that_nobody_reads_yet_does_not_block_the_loop() -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        output = Output(writer.fileno())
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(output.write("x" * 3_000_000))
            assert not (await asyncio.wait({writing}, timeout=0.05))[0]
            reader.setblocking(False)
            taken = 0
            loop = asyncio.get_running_loop()
            while taken < 3_000_000:
                taken += len(await loop.sock_recv(reader, 65_536))
        assert writing.done()


async def test_a_signal_ends_it_while_its_output_is_stuck_and_the_cursor_is_of_what_was_written(
    gateway: ScriptedGateway, env: dict[str, str]
) -> None:
    async with start_mesh("sub", "all", "--json", env=env, limit=1000) as process:
        visitor = await gateway.visitor()
        await visitor.accept(0)
        for seq in range(1, 400):
            await visitor.event(seq, make_event(text="y" * 1000))
        assert process.stdout is not None
        await process.stdout.readuntil(b'"cursor"')
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        printed = (await process.stderr.readline()).decode().strip().removeprefix("cursor: ")
        lines = (await process.stdout.read()).split(b"\n")
        whole = json.loads(lines[-2])["cursor"]
        assert printed == whole
