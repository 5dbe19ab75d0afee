"""Who must notice nothing: clients that keep to the protocol, each with events of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from jarvis_mesh.schema import SystemClock
from tests.support.http_client import SSE, ask, next_block
from tests.support.plain_client import connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.tokens import bearer, token_for

FORMS: Final = ("mesh.v1.json", "mesh.v1.cbor", SSE)
USERS: Final = tuple(f"honest-{number}" for number in range(len(FORMS)))
PAUSE: Final = 0.05
"""Seconds between two events of each."""


class Honest:
    """Checks that each client gets exactly its events, in order, over one connection."""

    def __init__(self, url: str, events: TestPublisher) -> None:
        self.received = dict.fromkeys(USERS, 0)
        self.published = 0
        self.wrong: list[str] = []
        self.latencies: list[float] = []
        self.watching = 0
        self._url = url
        self._events = events

    async def publish(self) -> None:
        """Publish an event for each, again and again, until cancelled."""
        clock = SystemClock()
        while True:
            for user in USERS:
                payload = {"agentId": "a", "n": self.published, "at": time.monotonic()}
                await self._events.publish(make_event(user=user, payload=payload))
            self.published += 1
            await clock.sleep(PAUSE)

    async def watch(self, user: str, form: str) -> None:
        """Be one client, until cancelled."""
        token = token_for(user, expires_in=86_400)
        try:
            if form == SSE:
                async with ask(self._url, SSE, channels=("all",), headers=bearer(token)) as stream:
                    self.watching += 1
                    while True:
                        block = await next_block(stream, within=60)
                        if "data" in block and "event" not in block:
                            self._take(user, block["data"]["event"])
            async with connect(
                self._url, form, additional_headers=bearer(token), ping_interval=None
            ) as client:
                await client.subscribe("all")
                self.watching += 1
                while True:
                    message = await client.next(within=60)
                    client.received.clear()
                    if message["op"] == "event":
                        self._take(user, message["event"])
                    elif message["op"] not in ("heartbeat", "lagging", "live"):
                        self.wrong.append(f"{user} was told {message}")
        except Exception as error:
            self.wrong.append(f"{user} was ended: {error!r}")
            raise

    def _take(self, user: str, event: dict[str, object]) -> None:
        payload = event["payload"]
        assert isinstance(payload, dict)
        if event["metadata"] != {"user": user} or payload["n"] != self.received[user]:
            self.wrong.append(f"{user} got {event}, and wanted its event {self.received[user]}")
        self.received[user] = payload["n"] + 1
        self.latencies.append(time.monotonic() - payload["at"])


async def all_received(honest: Honest, within: float) -> bool:
    """Return whether everything that was published comes within so many seconds."""
    try:
        async with asyncio.timeout(within):
            while set(honest.received.values()) != {honest.published}:
                await SystemClock().sleep(0.05)
    except TimeoutError:
        return False
    return True
