"""A follower over a WebSocket."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import Any

import websockets

from jarvis_mesh.schema import SystemClock
from tests.support.followers import RETRY_AFTER, Follower, Receive, open_socket
from tests.support.oracle import Reading
from tests.support.plain_client import PlainClient, connect, parse
from tests.support.subscription import Message

_CLOCK = SystemClock()


class WebSocketFollower(Follower):
    """Several subscriptions on one WebSocket, in either form."""

    kind = "WebSocket"

    def __init__(self, *args: Any, subprotocol: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._subprotocol = subprotocol
        self._client: PlainClient | None = None
        self._renewed_since: dict[str, Any] = {}

    async def _connect(self, url: str, stack: AsyncExitStack) -> Receive:
        client = await stack.enter_async_context(
            connect(url, self._subprotocol, sock=await open_socket(url), ping_interval=None)
        )
        self._client = client
        self._renewed_since.clear()  # what was asked on the last connection is over
        self._transport = client.socket.transport
        self.start_reading()
        for name in self.subscriptions:
            await self._subscribe(client, name)

        async def receive() -> list[Message]:
            return parse(await client.socket.recv())

        return receive

    async def _subscribe(self, client: PlainClient, name: str) -> None:
        sub = self.subscriptions[name]
        since = {} if sub.since is None else {"since": sub.since}
        await client.send("subscribe", id=name, sub=name, channels=list(sub.channels), **since)

    async def renew(self, since: Any) -> None:
        name = self._chance.choice(list(self.subscriptions))
        if self.reading is None or not self.reading.is_open(name) or name in self._renewed_since:
            return
        self._renewed_since[name] = since
        assert self._client is not None
        with suppress(websockets.ConnectionClosed):  # then the subscription goes on instead
            await self._client.send("unsubscribe", sub=name)

    async def _ask_again(self, reading: Reading) -> None:
        assert self._client is not None
        if reading.refused:
            await _CLOCK.sleep(RETRY_AFTER)
        again = [*reading.refused, *reading.unsubscribed]
        for name in reading.unsubscribed:
            self._retire(name, self._renewed_since.pop(name))
        reading.refused.clear()
        reading.unsubscribed.clear()
        for name in again:
            await self._subscribe(self._client, name)

    async def _hang_up(self) -> None:
        if self._client is not None and self._transport is not None:
            await self._client.socket.close()
