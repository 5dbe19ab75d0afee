"""The metrics of several workers, as one of them shows them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jarvis_mesh.gateway import worker_metrics
from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.gateway.worker_metrics import WorkerMetrics, WorkerPlace, combine
from jarvis_mesh.schema.errors import SetupError

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def metrics(connections: int, gaps: int = 0) -> Metrics:
    made = Metrics()
    made.gauge("mesh_connections", "Clients.", lambda: connections)
    for _ in range(gaps):
        made.gap("expired")
    return made


def samples(text: bytes) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "each sample once"
            found[key] = sample.value
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    with TemporaryDirectory() as path:
        yield Path(path)


def test_every_sample_says_whose_it_is_and_families_stay_together() -> None:
    text = combine({2: metrics(20, gaps=3).render(), 1: metrics(10).render()})
    found = samples(text)
    assert found["mesh_connections", (("worker", "1"),)] == 10
    assert found["mesh_connections", (("worker", "2"),)] == 20
    assert found["mesh_gaps_total", (("reason", "expired"), ("worker", "2"))] == 3
    assert found["mesh_workers", ()] == 2
    assert text.count(b"# TYPE mesh_gaps_total counter") == 1


async def test_whoever_is_asked_shows_all(folder: Path) -> None:
    workers = [
        WorkerMetrics(WorkerPlace(number, 3, folder), metrics(number).render)
        for number in (1, 2, 3)
    ]
    async with AsyncExitStack() as answering:
        for worker in workers:
            await answering.enter_async_context(worker.answering())
        for worker in workers:
            found = samples(await worker.render())
            assert [found["mesh_connections", (("worker", str(n)),)] for n in (1, 2, 3)] == [
                *(1, 2, 3)
            ]


async def test_who_hangs_is_gone_or_dies_half_way_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_metrics, "ANSWER_WITHIN", 0.1)
    place = WorkerPlace(1, 4, folder)
    over = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async def die(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(metrics(3).render()[:-1])
        writer.close()

    async with (
        await asyncio.start_unix_server(hang, place.socket_of(2)),
        await asyncio.start_unix_server(die, place.socket_of(3)),
    ):
        found = samples(await WorkerMetrics(place, metrics(1).render).render())
        over.set()
    assert found["mesh_workers", ()] == 1
    assert {labels for name, labels in found if name == "mesh_connections"} == {(("worker", "1"),)}


async def test_a_replacement_answers_where_the_killed_one_did(folder: Path) -> None:
    place, sibling = WorkerPlace(2, 2, folder), WorkerPlace(1, 2, folder)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place.socket_of(2)))
    async with WorkerMetrics(place, metrics(7).render).answering():
        found = samples(await WorkerMetrics(sibling, metrics(1).render).render())
    assert found["mesh_connections", (("worker", "2"),)] == 7


async def test_a_folder_that_can_hold_no_socket_is_said(tmp_path: Path) -> None:
    place = WorkerPlace(1, 2, tmp_path / ("long" * 30))
    with pytest.raises(SetupError, match="TMPDIR"):
        async with WorkerMetrics(place, metrics(1).render).answering():
            pass
