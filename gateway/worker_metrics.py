"""The metrics of several workers, whichever of them is asked.

Every worker shows its own on a Unix socket, in a folder that they share; the one that is asked
over HTTP asks the others, and shows each sample with the label `worker`. Nothing is added up:
a counter that starts again because its worker did is what Prometheus expects of a series, while
a sum that drops by one worker's share would be taken for a whole new counter.

prometheus_client's own multiprocess mode has no gauges that are read when they are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jarvis_mesh.schema.errors import SetupError

ANSWER_WITHIN: Final = 1.0
"""Seconds that another worker gets; one that is starting or hangs is left out."""
MAX_BYTES: Final = 1024**2
_END: Final = b"# EOF\n"
"""What a whole answer ends with: a worker may die while it writes."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which of several workers a process is."""

    number: int
    """From 1 to `count`; a replacement has that of the worker it replaces."""
    count: int
    folder: Path
    """Private to this user, and shared by the workers."""

    def socket_of(self, number: int) -> Path:
        """Return where a worker answers the others."""
        return self.folder / f"{number}.sock"


class WorkerMetrics:
    """The metrics of all workers, as one of them shows them.

    Args:
        place: Which one this is.
        render_own: Returns the text of its own.
    """

    def __init__(self, place: WorkerPlace, render_own: Callable[[], bytes]) -> None:
        self._place = place
        self._render_own = render_own

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Tell the other workers, while it lasts, what this one counted.

        What a worker of this number that was killed left behind is replaced.

        Raises:
            SetupError: there can be no socket in the folder.
        """
        path = self._place.socket_of(self._place.number)
        try:
            server = await asyncio.start_unix_server(self._answer, path)
        except OSError as error:
            raise SetupError(f"no socket for metrics at {path}: {error}; set TMPDIR") from None
        async with server:
            yield

    async def render(self) -> bytes:
        """Return what all workers that answer counted, as text."""
        me = self._place.number
        async with asyncio.TaskGroup() as tasks:
            asked = {
                number: tasks.create_task(_ask(self._place.socket_of(number)))
                for number in range(1, self._place.count + 1)
                if number != me
            }
        texts = {number: task.result() for number, task in asked.items()}
        answered = {number: text for number, text in texts.items() if text is not None}
        return combine({me: self._render_own(), **answered})

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(self._render_own() + _END)
            async with asyncio.timeout(ANSWER_WITHIN):
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # who asked doesn't wait any more
        finally:
            writer.close()


async def _ask(path: Path) -> bytes | None:
    """Return the text of the worker that answers at *path*; `None` if it doesn't."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                text = await reader.read(MAX_BYTES)
                while more := await reader.read(MAX_BYTES):
                    text += more
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return text if text.endswith(_END) else None


def combine(texts: Mapping[int, bytes]) -> bytes:
    """Return the samples of several workers' texts, each with the number of its worker."""
    families: dict[str, Metric] = {}
    for number, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {"worker": str(number), **sample.labels}
                whole.add_sample(sample.name, labels, sample.value)
    workers = Metric("mesh_workers", "Workers that answered.", "gauge")
    workers.add_sample("mesh_workers", {}, len(texts))
    return generate_latest(_Collected([*families.values(), workers]))


class _Collected:
    """What was collected already, in the form that is written as text."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
