"""Whom a gateway believes about the log."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from jarvis_mesh.gateway.inbox import Answer, Inbox
from jarvis_mesh.gateway.log_reader import LogReader
from jarvis_mesh.schema.errors import UnavailableError


class FakeInbox:
    """Answers every question with one message."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._answer = Answer(b"", json.dumps(content).encode())

    async def ask(self, *_question: object, **_options: object) -> list[Answer]:
        return [self._answer]


def reader(**more: Any) -> LogReader:
    info = {
        "created": "2026-11-24T22:00:00.000000001Z",
        "ts": "2026-11-24T23:00:00.5Z",
        "state": {"first_seq": 3, "last_seq": 9},
        **more,
    }
    return LogReader(cast(Inbox, FakeInbox(info)))


def replicas(*seconds: float) -> dict[str, Any]:
    others = [{"name": f"n{n}", "active": int(each * 1e9)} for n, each in enumerate(seconds)]
    return {"leader": "n", "replicas": others}


async def test_a_lone_server_is_believed() -> None:
    state = await reader(cluster={"leader": "n"}).state()
    assert (state.epoch, state.first_seq, state.last_seq) == ("1795557600000000001", 3, 9)


@pytest.mark.parametrize("active", [(0.5, 0.5), (0.5, 60.0), (2.9, 2.9), (0, 0), (1, 1, 60, 60)])
async def test_a_leader_in_touch_with_most_servers_is_believed(active: tuple[float, ...]) -> None:
    assert (await reader(cluster=replicas(*active)).state()).last_seq == 9


@pytest.mark.parametrize("active", [(9.31, 9.31), (3.1, 60.0), (1, 60, 60, 60)])
async def test_a_leader_that_was_frozen_or_cut_off_is_not(active: tuple[float, ...]) -> None:
    """Measured: one that was stopped for 9 s answers as leader, of a log without its end."""
    with pytest.raises(UnavailableError, match="out of touch"):
        await reader(cluster=replicas(*active)).state()


@pytest.mark.parametrize(
    ("err_code", "advice"), [(10059, "isn't there .* MESH_NATS_ADMIN_URL"), (10008, "try again")]
)
async def test_only_a_log_that_is_not_there_is_said_to_need_making(
    err_code: int, advice: str
) -> None:
    error = {"code": 503, "err_code": err_code, "description": "so it is"}
    with pytest.raises(UnavailableError, match=advice):
        await reader(error=error).state()
