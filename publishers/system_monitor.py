"""This machine's metrics, every few seconds: processor, memory, disk, network, load."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Final

import psutil
import structlog

from jarvis_mesh.publishers.system import SystemPublisher
from jarvis_mesh.publishers.window import Published
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError
from jarvis_mesh.schema.event import JSON

INTERVAL: Final = 5.0
"""Seconds between samples."""
MIN_INTERVAL: Final = 0.1
"""psutil's processor figures mean nothing over shorter times."""

log = structlog.get_logger(__name__)


class SystemMonitor:
    """Publishes `system:status` once and then `system:metrics` in an interval.

    Args:
        publisher: Its timeout should be about *interval*: an old sample is worth little.
        interval: Seconds between samples, at least 0.1.
    """

    def __init__(
        self,
        publisher: SystemPublisher,
        *,
        interval: float = INTERVAL,
        clock: Clock | None = None,
    ) -> None:
        self.skipped = 0
        """Samples that didn't get into the log."""
        self._publisher = publisher
        self._interval = max(interval, MIN_INTERVAL)
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            ForbiddenError: the NATS user may not publish metrics.
        """
        psutil.cpu_percent()  # the first call only starts its measurement
        await self._try(self._publisher.status("up", bootTime=int(psutil.boot_time()) * 1000))
        due = self._clock.monotonic()
        while True:
            await self._try(self._publisher.metrics(**read_metrics()))
            # Counted from the start, so that the samples don't drift; those missed are left out.
            due = max(due + self._interval, self._clock.monotonic())
            await self._clock.sleep(due - self._clock.monotonic())

    async def _try(self, publishing: Awaitable[Published]) -> None:
        try:
            await publishing
        except (UnavailableError, DeadlineError) as error:
            self.skipped += 1  # an old sample is worth nothing: count it, don't queue it
            log.debug("sample skipped", skipped=self.skipped, reason=error.message)


def read_metrics() -> dict[str, JSON]:
    """Return a sample: percentages, and bytes since the machine started."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(os.sep)
    load = psutil.getloadavg()
    metrics: dict[str, JSON] = {
        "cpu": {"percent": psutil.cpu_percent(), "count": psutil.cpu_count() or 1},
        "memory": {
            "totalBytes": memory.total,
            "usedBytes": memory.total - memory.available,
            "percent": memory.percent,
        },
        "disk": {"totalBytes": disk.total, "usedBytes": disk.used, "percent": disk.percent},
        "load": dict(zip(("1m", "5m", "15m"), load, strict=True)),
    }
    # Both are `None` in containers that hide them.
    if (network := psutil.net_io_counters()) is not None:
        metrics["network"] = {"sentBytes": network.bytes_sent, "receivedBytes": network.bytes_recv}
    if (blocks := psutil.disk_io_counters()) is not None:
        metrics["diskIo"] = {"readBytes": blocks.read_bytes, "writtenBytes": blocks.write_bytes}
    return metrics
