"""What a gateway looks like from outside: its log, its memory, what it holds on to."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.support.gateway_process import GatewayProcess
from tests.support.tokens import bearer, token_for

MIB: Final = 1024 * 1024
_WRONG: Final = re.compile(
    rb"Traceback|never retrieved|never awaited|Fatal error|\[(error|critical)\b|\bERROR\b|Exception"
)
_GAUGE: Final = re.compile(r"^(mesh_connections|mesh_subscriptions) (\S+)$", re.MULTILINE)
SHOWN: Final = 6_000


@dataclass(frozen=True)
class Holdings:
    """What a gateway holds for its clients."""

    connections: int
    subscriptions: int
    files: int
    nats_subscriptions: int

    def exceeds(self, other: Holdings) -> bool:
        """Say whether there is more of anything than in *other*."""
        return any(getattr(self, name) > getattr(other, name) for name in self.__dataclass_fields__)


class Watch:
    """Looks at a gateway.

    Args:
        log: The file that it logs to.
        nats_monitor: URL of nats-server's monitoring.
    """

    def __init__(self, gateway: GatewayProcess, log: Path, nats_monitor: str) -> None:
        self._gateway = gateway
        self._log = log
        self._monitor = nats_monitor
        self._read_bytes = 0
        self._operator = bearer(token_for("operator", subscribe=["all"], expires_in=86_400))

    @property
    def log_bytes(self) -> int:
        """How much it has logged."""
        return self._log.stat().st_size

    @property
    def has_ended(self) -> bool:
        """Whether it doesn't run any more."""
        return self._gateway.has_ended

    def rss_mib(self) -> float:
        """Return how much memory it has."""
        return float(psutil.Process(self._gateway.pid).memory_info().rss) / MIB

    def complaints(self) -> list[str]:
        """Return what the log says since the last call that it should never say."""
        if self.has_ended:
            return ["the gateway's process has ended"]
        with self._log.open("rb") as log:
            log.seek(self._read_bytes)
            news = log.read()
        end = news.rfind(b"\n") + 1
        self._read_bytes += end
        found = _WRONG.search(news[:end])
        if found is None:
            return []
        start = max(0, news.rfind(b"\n", 0, found.start()))
        return [f"its log says:\n{news[start : start + SHOWN].decode(errors='replace')}"]

    async def holdings(self) -> Holdings:
        """Return what it holds now."""
        text = await self._get(f"{self._gateway.url}/metrics", self._operator)
        gauges = {name: int(float(value)) for name, value in _GAUGE.findall(text)}
        connz = json.loads(await self._get(f"{self._monitor}/connz", {}))
        ours = [each for each in connz["connections"] if "gateway" in each.get("name", "")]
        return Holdings(
            gauges["mesh_connections"],
            gauges["mesh_subscriptions"],
            psutil.Process(self._gateway.pid).num_fds(),
            sum(each["subscriptions"] for each in ours),
        )

    async def _get(self, url: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - of loopback

        def get() -> str:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return str(answer.read().decode())

        return await asyncio.to_thread(get)
