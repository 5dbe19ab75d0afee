"""How workers are kept running; tests/system/test_workers.py has them serve."""

from __future__ import annotations

import asyncio
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from jarvis_mesh.cli import workers
from jarvis_mesh.cli.stopping import StopSignals
from jarvis_mesh.cli.worker import FAILED_FOR_GOOD, reason_path
from jarvis_mesh.cli.workers import MAX_PAUSE, pause_after, run_workers
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.worker_metrics import WorkerPlace
from jarvis_mesh.schema.errors import SetupError
from tests.support.clock import ManualClock
from tests.support.waiting import wait_until

Script = Callable[[WorkerPlace], str]


class Stage:
    """Workers that run a line of shell instead of a gateway."""

    def __init__(self, script: Script) -> None:
        self.clock = ManualClock()
        self.stop = StopSignals()
        self.started: list[WorkerPlace] = []
        self.make_the_log: set[int] = set()
        self._script = script

    async def start(self, settings: Settings, place: WorkerPlace, _sock: object) -> Process:
        self.started.append(place)
        if settings.nats_admin_url is not None:
            self.make_the_log.add(place.number)
        return await asyncio.create_subprocess_exec("/bin/sh", "-c", self._script(place))

    @asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[asyncio.Task[None]]:
        settings = Settings(workers=count, nats_admin_url=SecretStr("nats://admin:x@localhost"))
        with socket.create_server(("127.0.0.1", 0)) as sock:
            async with asyncio.TaskGroup() as tasks:
                yield tasks.create_task(run_workers(settings, sock, self.stop, self.clock))
                self.stop.asked.set()

    async def until_started(self, count: int) -> None:
        await wait_until(lambda: len(self.started) >= count, f"start {count}")


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Stage]:
    def make(script: Script) -> Stage:
        stage = Stage(script)
        monkeypatch.setattr(workers, "_start", stage.start)
        return stage

    return make


def test_the_pause_grows_up_to_a_bound() -> None:
    pauses = [pause_after(deaths) for deaths in range(1, 9)]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pause_after(10**9) == MAX_PAUSE


async def test_a_worker_that_keeps_dying_is_started_again_later_and_later(
    staged: Callable[[Script], Stage],
) -> None:
    stage = staged(lambda place: "exit 3" if place.number == 1 else "exec sleep 60")
    with capture_logs() as logs:
        async with stage.running(2):
            for deaths in (1, 2, 3):
                await stage.until_started(deaths + 1)
                await wait_until(lambda deaths=deaths: len(logs) == deaths, "a death")
                await stage.clock.advance(pause_after(deaths) - 0.01)
                assert len(stage.started) == deaths + 1
                await stage.clock.advance(0.02)
            await stage.until_started(5)
    assert [place.number for place in stage.started] == [1, 2, 1, 1, 1]
    assert stage.make_the_log == {1}
    assert {(entry["worker"], entry["code"]) for entry in logs[:3]} == {(1, 3)}


async def test_a_worker_that_fails_for_good_ends_the_others_with_its_reason(
    staged: Callable[[Script], Stage],
) -> None:
    def script(place: WorkerPlace) -> str:
        path = reason_path(place)
        return f"printf 'no such log' > {path}; exit {FAILED_FOR_GOOD}"

    stage = staged(lambda place: script(place) if place.number == 2 else "exec sleep 60")
    with pytest.RaisesGroup(pytest.RaisesExc(SetupError, match="no such log")):
        async with stage.running(2) as task:
            await asyncio.wait({task})


async def test_a_worker_that_does_not_stop_is_killed_at_the_second_signal(
    staged: Callable[[Script], Stage],
) -> None:
    stage = staged(lambda _place: "trap '' TERM; while :; do sleep 0.01; done")
    with capture_logs() as logs:
        async with stage.running(2) as task:
            await stage.until_started(2)
            stage.stop.asked.set()
            await wait_until(lambda: logs, "stopping")
            stage.stop.hurry.set()
            await asyncio.wait({task}, timeout=5)
            assert task.done()
