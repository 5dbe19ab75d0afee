"""Well-behaved clients beside the hostile ones: do they get their events, all and in order?"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Final

import websockets

from jarvis_mesh.publishers import EventPublisher
from jarvis_mesh.schema import SystemClock
from tests.support.http_client import SSE, ask
from tests.support.plain_client import connect
from tests.support.tokens import bearer, token_for

FORMS: Final = ("mesh.v1.json", "mesh.v1.cbor", SSE)
EVERY: Final = 0.02
"""Seconds between two rounds of events, one to each."""
A_DAY: Final = 86_400.0
PATIENCE: Final = 30.0
"""Seconds in which an honest client should hear something."""
_CLOCK = SystemClock()


@dataclass
class Honest:
    """One client, which watches what is its user's."""

    user: str
    form: str
    url: str
    received: int = 0
    lateness: list[float] = field(default_factory=list)
    """Seconds from the publish of an event to its receipt."""
    complaints: list[str] = field(default_factory=list)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Watch until cancelled, or until something is wrong."""
        try:
            if self.form == SSE:
                await self._watch_stream()
            else:
                await self._watch_socket()
        except (OSError, EOFError, TimeoutError, websockets.WebSocketException) as error:
            self.complaints.append(f"its connection ended: {error!r}")
        finally:
            self.is_open.set()

    async def _watch_socket(self) -> None:
        headers = bearer(token_for(self.user, expires_in=A_DAY))
        async with connect(self.url, self.form, additional_headers=headers) as client:
            await client.subscribe(f"user:{self.user}")
            self.is_open.set()
            while not self.complaints:
                message = await client.next(within=PATIENCE)
                client.received.clear()
                if message["op"] == "event":
                    self._take(message["event"])
                elif message["op"] not in ("heartbeat", "lagging", "live"):
                    self.complaints.append(f"was told {message}")

    async def _watch_stream(self) -> None:
        headers = bearer(token_for(self.user, expires_in=A_DAY))
        async with ask(self.url, SSE, channels=(f"user:{self.user}",), headers=headers) as answer:
            while not self.complaints:
                block = await answer.until("\n\n", within=PATIENCE)
                self.is_open.set()
                lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                if "data" in lines and "event" not in lines:
                    self._take(json.loads(lines["data"])["event"])
                elif lines.get("event", "live") != "live":
                    self.complaints.append(f"was told {block}")

    def _take(self, event: dict[str, Any]) -> None:
        payload = event["payload"]
        if payload["number"] != self.received or event["metadata"]["user"] != self.user:
            self.complaints.append(f"got {event} instead of number {self.received}")
        self.received += 1
        self.lateness.append(_CLOCK.monotonic() - payload["at"])


class Rounds:
    """Publishes an event for each honest client, again and again."""

    def __init__(self, publisher: EventPublisher, clients: list[Honest]) -> None:
        self.published = 0
        """Rounds."""
        self._publisher = publisher
        self._clients = clients

    async def run(self) -> None:
        """Publish until cancelled; a round is never left half done."""
        while True:
            for client in self._clients:
                payload = {"agentId": "a", "number": self.published, "at": _CLOCK.monotonic()}
                self._publisher.send_nowait("agent:created", payload, user=client.user)
            self.published += 1
            await _CLOCK.sleep(EVERY)
