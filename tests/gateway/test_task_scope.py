"""The tasks of one client end with it, and never end those of others."""

from __future__ import annotations

import asyncio

import pytest

from jarvis_mesh.gateway.task_scope import TaskScope


async def wait_for_ever(begun: asyncio.Event, seen: list[str]) -> None:
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        seen.append("ended")


async def test_what_runs_is_cancelled_and_what_has_not_begun_never_begins() -> None:
    begun, seen = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as tasks:
        scope = TaskScope(tasks)
        scope.spawn(wait_for_ever(begun, seen))
        await begun.wait()
        scope.spawn(wait_for_ever(begun, seen))
        await scope.cancel()
    assert seen == ["ended"]


async def test_what_outlives_the_client_goes_on() -> None:
    going_on, seen = asyncio.Event(), list[str]()

    async def work() -> None:
        await going_on.wait()
        seen.append("done")

    async with asyncio.TaskGroup() as tasks:
        scope = TaskScope(tasks)
        scope.spawn(work(), outlives=True)
        await scope.cancel()
        assert not seen
        going_on.set()
    assert seen == ["done"]


async def test_an_error_is_logged_and_ends_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("ours")

    told: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        scope = TaskScope(tasks)
        await asyncio.wait([scope.spawn(fail(), on_failure=lambda: told.append("failed"))])
    assert told == ["failed"]
    assert "a client's task failed" in capsys.readouterr().out
