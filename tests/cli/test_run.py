"""`mesh run`, as a shell runs it: on pipes, and in a terminal that the test types into."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.log_reading import read_log
from tests.support.mesh_command import TypedInto, announce, environment, mesh, start_mesh
from tests.support.terminal_output import logged_output, payloads_of
from tests.support.waiting import wait_until


@pytest.fixture
def env(nats_server: NatsServer, tmp_path: Path) -> dict[str, str]:
    announce(nats_server, tmp_path)
    return environment(tmp_path)


async def test_a_command_is_shown_and_published_between_its_task_events(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    ended = await mesh("run", "--session", "s-1", "--", "sh", "-c", "echo hello", env=env)
    assert (ended.code, ended.stdout, ended.stderr) == (0, b"hello\r\n", "")
    logged = [item.event for item in await read_log(nats_server)]
    assert [event.type for event in logged] == [
        "agent:task:started",
        "terminal:created",
        "terminal:output",
        "terminal:closed",
        "agent:task:completed",
    ]
    assert {event.metadata.session for event in logged} == {"s-1"}
    assert {event.source for event in logged} == {"agent-service", "terminal-service"}
    started, created = logged[:2]
    assert started.payload["task"] == "sh -c 'echo hello'"
    assert started.payload["terminalId"] == created.payload["terminalId"]


async def test_into_a_pipe_lines_end_in_crlf_and_stderr_comes_with_stdout_as_the_help_says(
    env: dict[str, str],
) -> None:
    ended = await mesh("run", "--", "sh", "-c", "echo out; echo err >&2", env=env)
    assert (ended.code, ended.stdout, ended.stderr) == (0, b"out\r\nerr\r\n", "")
    explained = " ".join((await mesh("run", "--help", env=env)).stdout.decode().split())
    assert "lines end in CRLF and stderr comes with stdout" in explained
    assert "What is typed is published only where the terminal echoes it" in explained


async def test_each_run_has_a_session_of_its_own(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    await mesh("run", "true", env=env)
    await mesh("run", "true", env=env)
    assert len({item.event.metadata.session for item in await read_log(nats_server)}) == 2


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("exit 3", 3, "exit code 3"),
        ("kill -TERM $$", 143, "ended by SIGTERM"),
        ("kill -KILL $$", 137, "ended by SIGKILL"),
    ],
)
async def test_the_exit_code_is_the_commands(
    nats_server: NatsServer, env: dict[str, str], command: str, code: int, error: str
) -> None:
    assert (await mesh("run", "--", "sh", "-c", command, env=env)).code == code
    [failed] = await payloads_of(nats_server, "agent:task:failed")
    assert failed["error"] == error


async def test_what_the_log_has_is_what_was_shown_byte_for_byte(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    command = "base64 /dev/urandom | head -c 3000000"
    ended = await mesh("run", "--", "sh", "-c", command, env=env)
    assert len(ended.stdout.replace(b"\r\n", b"\n")) == 3_000_000
    assert await logged_output(nats_server) == ended.stdout
    assert ended.stderr == ""


async def test_piped_input_arrives_as_it_is_and_ends(env: dict[str, str]) -> None:
    data = os.urandom(200_000)
    ended = await mesh("run", "--", "cksum", env=env, stdin=data)
    expected = subprocess.run(["cksum"], input=data, capture_output=True, check=True)  # noqa: ASYNC221
    assert ended.stdout.replace(b"\r\n", b"\n") == expected.stdout


async def test_without_any_standard_input_the_command_has_an_empty_one(
    env: dict[str, str],
) -> None:
    ended = await mesh("run", "--", "cat", env=env, preexec_fn=lambda: os.close(0))
    assert (ended.code, ended.stdout) == (0, b"")


async def test_output_that_nobody_reads_ends_the_command_as_usual(env: dict[str, str]) -> None:
    async with start_mesh("run", "--", "yes", env=env) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert await process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_reaches_the_command(env: dict[str, str], number: signal.Signals) -> None:
    command = "trap 'echo caught; exit 9' INT TERM HUP; echo ready; while :; do sleep 0.05; done"
    async with start_mesh("run", "--", "sh", "-c", command, env=env) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(number)
        assert await process.stdout.readline() == b"caught\r\n"
        assert await process.wait() == 9


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        ("no-such-command", 127, "command not found"),
        ("./no-such-file", 127, "not found"),
        ("/etc/passwd", 126, "not executable"),
    ],
)
async def test_what_cannot_be_run_has_the_exit_code_of_shells(
    env: dict[str, str], command: str, code: int, complaint: str
) -> None:
    ended = await mesh("run", "--", command, env=env)
    assert (ended.code, ended.stdout) == (code, b"")
    assert complaint in ended.stderr


async def test_a_file_that_is_no_program_is_said(
    nats_server: NatsServer, env: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "broken"
    program.write_text("no program")
    program.chmod(0o755)
    ended = await mesh("run", "--", str(program), env=env)
    assert (ended.code, ended.stdout) == (126, b"")
    assert "can't be started" in ended.stderr
    assert len(await payloads_of(nats_server, "agent:task:failed")) == 1


async def test_without_a_mesh_it_says_so_once_and_runs_the_command(tmp_path: Path) -> None:
    env = environment(tmp_path)
    before = time.monotonic()
    ended = await mesh("run", "--", "sh", "-c", "cat; exit 3", env=env, stdin=b"in\n")
    assert time.monotonic() - before < 6
    assert (ended.code, ended.stdout) == (3, b"in\n")
    assert ended.stderr.count("mesh:") == 1
    assert "not published" in ended.stderr


async def test_a_mesh_that_was_killed_is_no_hindrance(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    await nats_server.stop()
    before = time.monotonic()
    ended = await mesh("run", "--", "echo", "all the same", env=env)
    assert time.monotonic() - before < 6
    assert (ended.code, ended.stdout) == (0, b"all the same\n")
    assert nats_server.url("terminal-service") not in ended.stderr


async def test_a_mesh_that_is_frozen_is_hardly_a_hindrance(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        before = time.monotonic()
        ended = await mesh("run", "--", "echo", "all the same", env=env)
        assert time.monotonic() - before < 6
        assert ended.stdout == b"all the same\n"
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)


async def test_a_mesh_that_dies_in_the_middle_does_not_disturb_the_command(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    command = "echo ready; read go; yes | head -c 20000000 | wc -c; exit 4"
    async with start_mesh(
        "run", "--", "sh", "-c", command, env=env, stdin=asyncio.subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        await process.stdout.readline()
        nats_server.kill()
        await nats_server.wait()
        stdout, stderr = await process.communicate(b"go\n")
    assert (process.returncode, stdout) == (4, b"20000000\r\n")
    assert b"may be missing" in stderr
    assert stderr.count(b"\n") == 1


async def test_output_goes_on_while_the_mesh_is_away_and_arrives_when_it_is_back(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    command = "echo one; read go; echo two; read go; echo three"
    async with start_mesh(
        "run", "--", "sh", "-c", command, env=env, stdin=asyncio.subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        await process.stdout.readline()
        await nats_server.stop()
        process.stdin.write(b"go\n")
        assert await process.stdout.readline() == b"two\r\n"
        await nats_server.start()
        _, stderr = await process.communicate(b"go\n")
    assert stderr == b""
    assert await logged_output(nats_server) == b"one\r\ntwo\r\nthree\r\n"


async def test_in_a_terminal_keys_reach_the_command_and_its_modes_come_back(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    command = "echo ready; read line; echo got $line; test -t 0 && test -t 1 && echo tty"
    async with asyncio.timeout(30), TypedInto("run", "--", "sh", "-c", command, env=env) as typed:
        before = termios.tcgetattr(typed.child.fd)
        await wait_until(lambda: b"ready" in typed.shown, "ready")
        assert termios.tcgetattr(typed.child.fd) != before
        typed.type(b"keys\n")
        assert (await typed.ended()).code == 0
        assert termios.tcgetattr(typed.child.fd) == before
    assert b"got keys\r\ntty\r\n" in typed.shown
    assert [item["input"] for item in await payloads_of(nats_server, "terminal:input")] == [
        "keys\n"
    ]


async def test_in_a_terminal_ctrl_c_reaches_the_command(env: dict[str, str]) -> None:
    command = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    async with asyncio.timeout(30), TypedInto("run", "--", "sh", "-c", command, env=env) as typed:
        await wait_until(lambda: b"ready" in typed.shown, "ready")
        typed.type(b"\x03")
        assert (await typed.ended()).code == 9
    assert b"caught" in typed.shown


async def test_in_a_terminal_ctrl_c_ends_a_command_that_does_not_catch_it(
    env: dict[str, str],
) -> None:
    async with (
        asyncio.timeout(30),
        TypedInto("run", "--", "sh", "-c", "echo ready; sleep 60", env=env) as typed,
    ):
        await wait_until(lambda: b"ready" in typed.shown, "ready")
        typed.type(b"\x03")
        assert (await typed.ended()).shell_code == 130


async def test_in_a_terminal_the_windows_size_and_its_changes_reach_the_command(
    env: dict[str, str],
) -> None:
    command = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done"
    async with asyncio.timeout(30), TypedInto("run", "--", "sh", "-c", command, env=env) as typed:
        await wait_until(lambda: b"30 100" in typed.shown, "the first size")
        typed.child.resize(120, 40)
        await wait_until(lambda: b"40 120" in typed.shown, "the second size")
        assert (await typed.ended()).code == 0


async def test_in_a_terminal_a_password_is_not_published(
    nats_server: NatsServer, env: dict[str, str]
) -> None:
    command = "stty -echo; echo password:; read line; stty echo; echo thanks"
    async with asyncio.timeout(30), TypedInto("run", "--", "sh", "-c", command, env=env) as typed:
        await wait_until(lambda: b"password:" in typed.shown, "the question")
        typed.type(b"hunter2\n")
        assert (await typed.ended()).code == 0
    assert all("hunter2" not in str(item.event.payload) for item in await read_log(nats_server))


async def test_in_a_terminal_its_modes_come_back_after_sigterm(env: dict[str, str]) -> None:
    async with (
        asyncio.timeout(30),
        TypedInto("run", "--", "sh", "-c", "echo ready; sleep 60", env=env) as typed,
    ):
        before = termios.tcgetattr(typed.child.fd)
        await wait_until(lambda: b"ready" in typed.shown, "ready")
        os.kill(typed.child.pid, signal.SIGTERM)
        assert (await typed.ended()).shell_code == 128 + signal.SIGTERM
        assert termios.tcgetattr(typed.child.fd) == before


async def test_in_a_terminal_the_command_has_the_users_own_modes(env: dict[str, str]) -> None:
    command = "stty -a; read x"
    async with asyncio.timeout(30), TypedInto("run", "--", "sh", "-c", command, env=env) as typed:
        modes = termios.tcgetattr(typed.child.fd)
        modes[6][termios.VERASE] = b"\x08"
        termios.tcsetattr(typed.child.fd, termios.TCSANOW, modes)
        await wait_until(lambda: b"erase = ^H" in typed.shown, "the key that erases")
        typed.type(b"\n")
        await typed.ended()
