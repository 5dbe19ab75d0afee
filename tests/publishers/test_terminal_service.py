"""Real programs in real terminals, published into a real log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.publishers import EventPublisher, ExitStatus, TerminalService, WindowLimits
from jarvis_mesh.publishers.pty_child import Launch, PtyChild
from jarvis_mesh.schema.errors import (
    BadRequestError,
    EventError,
    SetupError,
    UnavailableError,
)
from tests.support.log_reading import read_log
from tests.support.terminal_output import logged_output, payloads_of
from tests.support.waiting import wait_until

SOURCE = "terminal-service"


@asynccontextmanager
async def serve(
    server: NatsServer, limits: WindowLimits | None = None, close_timeout: float = 10.0
) -> AsyncIterator[TerminalService]:
    publisher = EventPublisher(
        SOURCE, server.url(SOURCE), limits=limits, close_timeout=close_timeout
    )
    async with publisher, TerminalService(publisher) as service:
        yield service


async def run(server: NatsServer, *command: str, **options: object) -> tuple[ExitStatus, bytes]:
    """Run a command to its end; return how it ended and what the tee got."""
    shown = bytearray()
    async with serve(server) as service:
        terminal = await service.create(command, on_output=shown.extend, **options)  # type: ignore[arg-type]
        return await terminal.wait(), bytes(shown)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() not in ("nats-server",)]


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_command_is_published_from_created_to_closed(nats_server: NatsServer) -> None:
    command = ("sh", "-c", "echo hello")
    status, shown = await run(nats_server, *command, user="alice", session="s-1", columns=99)
    assert (status, shown) == (ExitStatus(0, None), b"hello\r\n")
    logged = await read_log(nats_server)
    assert [item.event.type for item in logged] == [
        "terminal:created",
        "terminal:output",
        "terminal:closed",
    ]
    created, output, closed = (item.event.payload for item in logged)
    assert created["command"] == "sh -c 'echo hello'"
    assert created["columns"] == 99
    assert output == {"terminalId": created["terminalId"], "output": "hello\r\n"}
    assert closed == {"terminalId": created["terminalId"], "exitCode": 0}
    assert {item.event.metadata.user for item in logged} == {"alice"}
    assert logged[0].subject.endswith(f".terminal-service.{created['terminalId']}.alice.s-1")


async def test_a_burst_of_3_mb_arrives_byte_for_byte(nats_server: NatsServer) -> None:
    command = "base64 /dev/urandom | head -c 3000000"
    status, shown = await run(nats_server, "sh", "-c", command)
    assert status.code == 0
    assert len(shown.replace(b"\r\n", b"\n")) == 3_000_000
    assert await logged_output(nats_server) == shown


async def test_bytes_that_are_not_utf_8_arrive_byte_for_byte(nats_server: NatsServer) -> None:
    command = "stty -opost; head -c 200000 /dev/urandom"
    _, shown = await run(nats_server, "sh", "-c", command)
    assert len(shown) == 200_000
    assert await logged_output(nats_server) == shown


async def test_a_character_in_two_batches_is_not_torn(nats_server: NatsServer) -> None:
    command = r"printf '\342\202'; sleep 0.2; printf '\254!'"
    await run(nats_server, "sh", "-c", command)
    payloads = await payloads_of(nats_server, "terminal:output")
    assert "".join(payload["output"] for payload in payloads) == "€!"
    assert not any("data" in payload for payload in payloads)


@pytest.mark.parametrize(
    ("command", "closed"),
    [
        ("exit 0", {"exitCode": 0}),
        ("exit 7", {"exitCode": 7}),
        ("kill -KILL $$", {"signal": "SIGKILL"}),
        ("kill -TERM $$", {"signal": "SIGTERM"}),
    ],
)
async def test_how_it_ended_is_published(
    nats_server: NatsServer, command: str, closed: dict[str, object]
) -> None:
    await run(nats_server, "sh", "-c", command, terminal_id="t1")
    assert await payloads_of(nats_server, "terminal:closed") == [{"terminalId": "t1"} | closed]


async def test_a_signal_has_the_exit_code_that_shells_give_it(nats_server: NatsServer) -> None:
    status, _ = await run(nats_server, "sh", "-c", "kill -INT $$")
    assert status.shell_code == 130


async def test_no_byte_is_lost_when_it_exits_at_once(nats_server: NatsServer) -> None:
    script = "import os; os.write(1, b'x' * 3000)"
    for _ in range(10):
        _, shown = await run(nats_server, sys.executable, "-S", "-c", script)
        assert shown == b"x" * 3000


async def test_a_process_left_in_the_background_does_not_hold_us(nats_server: NatsServer) -> None:
    command = "trap '' HUP; (sleep 30; echo late) & echo $!"
    async with asyncio.timeout(5):
        status, shown = await run(nats_server, "sh", "-c", command)
    assert status.code == 0
    os.kill(int(shown), signal.SIGKILL)


async def test_a_flood_from_the_background_does_not_hold_us(nats_server: NatsServer) -> None:
    command = "trap '' HUP; echo $$; exec 3>&1; (exec yes >&3) & sleep 0.1"
    async with asyncio.timeout(20):
        status, shown = await run(nats_server, "sh", "-c", command)
    assert status.code == 0
    group = int(shown.split()[0])
    await wait_until(lambda: not group_exists(group), "the end of `yes`, whose terminal is gone")


async def test_a_program_that_closes_its_terminal_and_reopens_it_is_heard(
    nats_server: NatsServer,
) -> None:
    command = "echo one; exec >/dev/null 2>&1 </dev/null; sleep 0.3; echo two >/dev/tty; sleep 0.2"
    _, shown = await run(nats_server, "sh", "-c", command)
    assert shown == b"one\r\ntwo\r\n"


async def test_a_resize_is_seen_by_the_program(nats_server: NatsServer) -> None:
    shown = bytearray()
    async with serve(nats_server) as service:
        command = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done"
        terminal = await service.create(
            ["sh", "-c", command], columns=100, rows=30, on_output=shown.extend
        )
        await wait_until(lambda: b"30 100" in shown, "the first size")
        terminal.resize(120, 40)
        await wait_until(lambda: b"40 120" in shown, "the second size")
        await terminal.wait()


async def test_input_is_typed_and_published(nats_server: NatsServer) -> None:
    shown = bytearray()
    async with serve(nats_server) as service:
        terminal = await service.create(
            ["sh", "-c", "read line; echo got $line"], on_output=shown.extend
        )
        await terminal.write("grüße\n".encode())
        await terminal.wait()
        with pytest.raises(UnavailableError):
            await terminal.write(b"more")
    assert b"got gr\xc3\xbc\xc3\x9fe" in shown
    [typed] = await payloads_of(nats_server, "terminal:input")
    assert typed["input"] == "grüße\n"


async def test_input_while_the_echo_is_off_is_never_published(nats_server: NatsServer) -> None:
    shown = bytearray()
    command = "stty -echo; echo password:; read line; stty echo; echo thanks; read line"
    async with serve(nats_server) as service:
        terminal = await service.create(["sh", "-c", command], on_output=shown.extend)
        await wait_until(lambda: b"password:" in shown)
        await terminal.write(b"hunter2\n")
        await wait_until(lambda: b"thanks" in shown)
        await terminal.write(b"bye\n")
        await terminal.wait()
    assert [item["input"] for item in await payloads_of(nats_server, "terminal:input")] == ["bye\n"]
    assert all("hunter2" not in str(item.event.payload) for item in await read_log(nats_server))


async def test_more_input_than_the_kernel_takes_at_once_arrives_whole(
    nats_server: NatsServer,
) -> None:
    shown = bytearray()
    async with serve(nats_server) as service:
        command = "stty raw -echo; echo ready; head -c 300000 | cksum"
        terminal = await service.create(["sh", "-c", command], on_output=shown.extend)
        await wait_until(lambda: b"ready" in shown)
        await terminal.write(b"x" * 300_000)
        assert (await terminal.wait()).code == 0
    assert b" 300000" in shown


async def test_writing_to_a_program_that_reads_nothing_ends_with_it(
    nats_server: NatsServer,
) -> None:
    async with serve(nats_server) as service:
        terminal = await service.create(["sh", "-c", "stty raw; sleep 0.3"])
        with pytest.raises(UnavailableError):
            await terminal.write(b"x" * 10_000_000)


async def test_standard_input_can_be_a_pipe_with_an_end(nats_server: NatsServer) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"\x00\xff\x04 binary")
    os.close(write_end)
    _, shown = await run(nats_server, "sh", "-c", "wc -c; test -t 1 && tty", stdin=read_end)
    os.close(read_end)
    assert shown.startswith(b"10\r\n")
    assert await payloads_of(nats_server, "terminal:input") == []


async def test_directory_and_environment_are_the_commands(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    env = {"PATH": os.environ["PATH"], "GREETING": "hi"}
    _, shown = await run(
        nats_server, "sh", "-c", "pwd; echo $GREETING$HOME", cwd=str(tmp_path), env=env
    )
    assert shown.decode().split() == [str(tmp_path), "hi"]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ([], "no command"),
        (["no-such-command"], "no-such-command: command not found"),
        (["/etc/passwd"], "not executable"),
        (["./missing"], "not found"),
    ],
)
async def test_what_cannot_be_started_is_said(
    nats_server: NatsServer, command: list[str], complaint: str
) -> None:
    async with serve(nats_server) as service:
        with pytest.raises(SetupError, match=complaint):
            await service.create(command)
    assert await read_log(nats_server) == []


async def test_a_program_that_fails_to_start_is_published(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "broken").write_text("no program")
    (tmp_path / "broken").chmod(0o755)
    async with serve(nats_server) as service:
        with pytest.raises(SetupError, match="format"):
            await service.create([str(tmp_path / "broken")])
        with pytest.raises(SetupError, match="No such file"):
            await service.create(["true"], cwd=str(tmp_path / "missing"))
    assert len(await payloads_of(nats_server, "terminal:error")) == 2
    assert children() == []


async def test_a_terminals_id_is_checked(nats_server: NatsServer) -> None:
    async with serve(nats_server) as service:
        await service.create(["sleep", "9"], terminal_id="t1")
        with pytest.raises(BadRequestError, match="already"):
            await service.create(["true"], terminal_id="t1")
        with pytest.raises(EventError, match="129 bytes"):
            await service.create(["true"], terminal_id="t" * 129)


async def test_leaving_the_service_ends_and_reaps_every_program(nats_server: NatsServer) -> None:
    shown = bytearray()
    async with serve(nats_server) as service:
        for command in (
            "echo ready; sleep 60",
            "trap '' HUP; echo ready; while :; do sleep 1; done",
        ):
            await service.create(["sh", "-c", command], on_output=shown.extend)
        await wait_until(lambda: shown.count(b"ready") == 2, "both programs")
        assert len(children()) == 2
    assert children() == []
    closed = await payloads_of(nats_server, "terminal:closed")
    assert sorted(item["signal"] for item in closed) == ["SIGHUP", "SIGKILL"]


async def test_python_s_ignored_signals_are_not_inherited(nats_server: NatsServer) -> None:
    _, shown = await run(nats_server, "sh", "-c", "yes | head -n 1; grep SigIgn /proc/self/status")
    assert shown == b"y\r\nSigIgn:\t0000000000000000\r\n"


async def test_a_flood_waits_for_the_log_and_loses_nothing(nats_server: NatsServer) -> None:
    limits = WindowLimits(max_events=4)
    shown = bytearray()
    async with serve(nats_server, limits) as service:
        terminal = await service.create(
            ["sh", "-c", "yes | head -c 2000000"], on_output=shown.extend
        )
        await terminal.wait()
        assert terminal.dropped_bytes == 0
    assert await logged_output(nats_server) == shown


async def test_while_nats_is_away_the_program_goes_on_and_what_is_missing_is_said(
    nats_server: NatsServer,
) -> None:
    limits = WindowLimits(max_events=8)
    shown = bytearray()
    async with serve(nats_server, limits) as service:
        script = "yes | head -c 1000000; echo half; read line; echo end"
        terminal = await service.create(["sh", "-c", script], on_output=shown.extend)
        await nats_server.stop()
        async with asyncio.timeout(10):
            await wait_until(lambda: b"half" in shown, "the program's half")
        await nats_server.start()
        await wait_until(lambda: service._publisher.unacked == 0, "the window's end", within=20)
        await terminal.write(b"\n")
        await terminal.wait()
    outputs = await payloads_of(nats_server, "terminal:output")
    dropped = sum(item.get("dropped", 0) for item in outputs)
    assert dropped == terminal.dropped_bytes > 0
    assert len(await logged_output(nats_server)) == len(shown) - dropped


async def test_a_frozen_mesh_holds_the_program_up_only_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_mesh.publishers.output_feed.STALL", 0.3)
    limits = WindowLimits(max_events=8)
    async with serve(nats_server, limits, close_timeout=0.1) as service:
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            terminal = await service.create(["sh", "-c", "yes | head -c 5000000"])
            async with asyncio.timeout(5):
                await terminal.wait()
            assert terminal.dropped_bytes > 4_000_000
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)


@pytest.mark.parametrize("error", [AttributeError, OSError])
async def test_without_pidfd_the_end_is_noticed_too(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def no_pidfd(_pid: int) -> int:
        raise error

    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    status, _ = await run(nats_server, "sh", "-c", "sleep 0.1; exit 3")
    assert status.code == 3


async def test_a_cancelled_service_kills_what_it_started(nats_server: NatsServer) -> None:
    publisher = EventPublisher(SOURCE, nats_server.url(SOURCE), close_timeout=1)
    started = asyncio.Event()

    async def work() -> None:
        async with publisher, TerminalService(publisher) as service:
            await service.create(["sleep", "60"])
            started.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await started.wait()
        task.cancel()
    assert children() == []


def test_closing_a_child_twice_is_once() -> None:
    child = PtyChild(Launch(["sleep", "60"]))
    child.close()
    child.close()
    assert not psutil.pid_exists(child.pid)
