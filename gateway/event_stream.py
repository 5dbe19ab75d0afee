"""An endless HTTP answer: one feed, from where it starts to live and on.

Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jarvis_mesh.gateway.endpoint import Endpoint
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.lifetime import live_out
from jarvis_mesh.gateway.outbox import Outbox
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed
from jarvis_mesh.gateway.sockets import transport_of, unacknowledged_bytes
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.wire import Live, Subscribed

FAREWELL: Final = 60.0
"""Seconds that a client which is being sent away has for taking the last bytes."""

log = structlog.get_logger(__name__)


class EventStream(Response):
    """Streams *feed*, which is open, until either side ends it; then closes it.

    Args:
        cursor: Where the feed was opened; its own may be of a newer log by now.
        form: What events are written as.
    """

    def __init__(
        self, feed: Feed, cursor: Cursor, form: Format, gateway: Gateway, media_type: str
    ) -> None:
        super().__init__(
            media_type=media_type,
            # nginx would otherwise hold the events back until a buffer is full.
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self._feed = feed
        self._cursor = cursor
        self._form = form
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        finally:
            await self._feed.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        services, transport = self._gateway.services, transport_of(scope)
        outbox = Outbox(self._gateway.settings.high_water_bytes, self._form.separator)
        unacknowledged = partial(unacknowledged_bytes, transport)
        encoded_runs = services.encoded_runs
        sender = Sender(self._form, outbox, encoded_runs, services.clock, unacknowledged)
        patterns = [each.pattern for each in self._feed.filters]
        sender.say(Subscribed(filters=patterns, cursor=str(self._cursor)))
        client = StreamClient(self._feed, sender, services)
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with asyncio.TaskGroup() as tasks:
            with self._gateway.serving(client):
                try:
                    await live_out(
                        tasks,
                        sender,
                        transport,
                        listening=_until_gone(receive),
                        writing=_write(send, outbox),
                        feeding=client.run(),
                        farewell=FAREWELL,
                        hurry=self._gateway.hurry,
                    )
                finally:
                    client.close()


class StreamClient(Endpoint):
    """The client of a stream, with its one feed."""

    def __init__(self, feed: Feed, sender: Sender, services: Services) -> None:
        super().__init__(sender, SharedFeed(sender, services), services)
        self.sub = None
        self.feed = feed
        self.live_after = 0
        sender.on_end = self._shared.stop

    def close(self) -> None:
        """Have no more events. Idempotent."""
        self._shared.stop()

    async def run(self) -> None:
        """Bring the feed to live and keep it going, until cancelled."""
        try:
            await self._run()
        except Exception:
            log.exception("a stream failed")
            self._fail()

    async def _run(self) -> None:
        # Even one from now: the live feed has moved on since it was opened.
        self._shared.start(self.feed.engine.cursor)
        self._shared.add(self)
        await self.feed.begin(self._shared)
        replayed = await self._shared.catch_up()
        self._sender.say(Live(cursor=str(self.feed.now()), replayed=replayed))
        await self._shared.run()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, outbox: Outbox) -> None:
    while message := await outbox.take():
        await send({"type": "http.response.body", "body": message, "more_body": True})
        outbox.sent()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
