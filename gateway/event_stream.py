"""An endless HTTP answer: one feed, from where it starts to live and on.

Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.endpoint import Endpoint
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.lifetime import live_out
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.outbox import QueuedOutbox
from jarvis_mesh.gateway.sender import Sender
from jarvis_mesh.gateway.services import Services
from jarvis_mesh.gateway.shared_feed import SharedFeed
from jarvis_mesh.gateway.sockets import transport_of
from jarvis_mesh.gateway.task_scope import TaskScope
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.wire import Live, Subscribed


class EventStream(Response):
    """Streams *feed*, which is open, until either side ends it; then closes it.

    Args:
        cursor: Where the feed was opened; its own may be of a newer log by now.
        form: What events are written as.
        grants: Of the client; the stream ends when they do.
        visit: What the client has taken of what is limited.
    """

    def __init__(
        self,
        feed: Feed,
        cursor: Cursor,
        form: Format,
        grants: Grants,
        visit: Visit,
        gateway: Gateway,
        media_type: str,
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
        self._grants = grants
        self._visit = visit
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        finally:
            self._visit.end()
            await self._feed.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, transport = self._gateway, transport_of(scope)
        limit = gateway.settings.high_water_bytes
        outbox = QueuedOutbox(limit, self._form.separator, transport)
        sender = Sender(self._form, outbox, gateway.services.encoded_runs)
        patterns = [each.pattern for each in self._feed.filters]
        sender.say(Subscribed(filters=patterns, cursor=str(self._cursor)))
        tasks = TaskScope(gateway.tasks)
        services, grants = gateway.services, self._grants
        client = StreamClient(self._feed, sender, services, tasks, grants, self._visit)
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with gateway.serving(client):
            tasks.spawn(client.run(), on_failure=client.fail)
            try:
                leaving, writing = _until_gone(receive), _write(send, outbox)
                await live_out(outbox, transport, leaving, writing=writing)
            finally:
                client.close()
                await tasks.cancel()


class StreamClient(Endpoint):
    """The client of a stream, with its one feed."""

    def __init__(
        self,
        feed: Feed,
        sender: Sender,
        services: Services,
        tasks: TaskScope,
        grants: Grants,
        visit: Visit,
    ) -> None:
        super().__init__(sender, SharedFeed(sender, services, tasks), services, grants, visit)
        services.deadlines.set(self, grants.expires)
        self.sub = None
        self.feed = feed
        self.live_after = 0
        sender.on_end = self._shared.stop
        sender.on_failure = self.fail

    def close(self) -> None:
        """Have no more events. Idempotent."""
        self._services.deadlines.forget(self)
        self._shared.stop()
        self._sender.forget()

    async def run(self) -> None:
        """Bring the feed to live, where its group keeps it going."""
        # Even one from now: the live feed has moved on since it was opened.
        self._shared.start(self.feed.engine.cursor)
        self._shared.add(self)
        await self.feed.begin(self._shared)
        replayed = await self._shared.catch_up()
        self.feed.end_replay()
        self._sender.say(Live(cursor=str(self.feed.now()), replayed=replayed))


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, outbox: QueuedOutbox) -> None:
    while message := await outbox.take():
        await send({"type": "http.response.body", "body": message, "more_body": True})
        outbox.sent()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
