"""Followers over HTTP: server-sent events and JSON lines, one subscription each.

Their messages are brought into the form of the WebSocket protocol, so that the same rules judge
them.

Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlencode

import h11

from tests.support.followers import Follower, Receive, open_socket
from tests.support.subscription import CURSOR, Message

SSE = "text/event-stream"
LINES = "application/x-ndjson"
RETRYABLE = frozenset({429, 500, 503, 504})
_CHUNK = 64 * 1024


class Stream:
    """An endless answer, and the request for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.transport = writer.transport
        self._reader = reader
        self._writer = writer
        self._protocol = h11.Connection(h11.CLIENT)

    async def ask(self, target: str, headers: dict[str, str]) -> None:
        """Send the request and read the answer's head.

        Raises:
            EOFError: there is no answer, or it can't be given now.
        """
        request = h11.Request(method="GET", target=target, headers=list(headers.items()))
        self._writer.write(self._protocol.send(request) or b"")
        self._writer.write(self._protocol.send(h11.EndOfMessage()) or b"")
        head = await self._next()
        if not isinstance(head, h11.Response) or head.status_code in RETRYABLE:
            raise EOFError
        assert head.status_code == 200, head

    async def read(self) -> str:
        """Return some more of the body.

        Raises:
            EOFError: it has ended.
        """
        event = await self._next()
        if not isinstance(event, h11.Data):
            raise EOFError  # noqa: TRY004 - no mistake of a caller
        return bytes(event.data).decode()

    async def _next(self) -> Any:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._reader.read(_CHUNK))
        return event


class HttpFollower(Follower):
    """One subscription over an endless GET."""

    accept: str
    separator: str

    async def _connect(self, url: str, stack: AsyncExitStack) -> Receive:
        streams = await asyncio.open_connection(sock=await open_socket(url))
        stack.callback(streams[1].transport.abort)
        stream = Stream(*streams)
        reading = self.start_reading(implicit=True)
        target, headers = self._request()
        await stream.ask(target, {"Host": "127.0.0.1", "Accept": self.accept, **headers})
        self._transport = stream.transport
        rest = ""

        async def receive() -> list[Message]:
            nonlocal rest
            *whole, rest = (rest + await stream.read()).split(self.separator)
            return [message for block in whole for message in self._messages(block)]

        assert reading is self.reading
        return receive

    def _request(self) -> tuple[str, dict[str, str]]:
        """Return target and headers that resume the subscription."""
        (sub,) = self.subscriptions.values()
        query = [("channel", channel) for channel in sub.channels]
        since = sub.since["seconds"] if isinstance(sub.since, dict) else sub.since
        query += [] if since is None else [("since", since)]
        return f"/v1/events?{urlencode(query)}", {}

    @abstractmethod
    def _messages(self, block: str) -> list[Message]:
        """Return what one block of the stream says, in the form that JSON has."""

    async def renew(self, since: Any) -> None:
        (name,) = self.subscriptions
        self.cut()
        self._retire(name, since)

    async def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()


class LinesFollower(HttpFollower):
    """JSON lines: the WebSocket protocol's messages as they are."""

    kind, accept, separator = "JSON lines", LINES, "\n"

    def _messages(self, block: str) -> list[Message]:
        return [json.loads(block)]


class SseFollower(HttpFollower):
    """Server-sent events: what an EventSource gets, and what it resumes with."""

    kind, accept, separator = "server-sent events", SSE, "\n\n"

    async def _connect(self, url: str, stack: AsyncExitStack) -> Receive:
        self._is_first = True
        return await super()._connect(url, stack)

    def _request(self) -> tuple[str, dict[str, str]]:
        (sub,) = self.subscriptions.values()
        target, headers = super()._request()
        return target, {**headers, **({"Last-Event-ID": sub.cursor} if sub.spans else {})}

    def _messages(self, block: str) -> list[Message]:
        """Return what a block says; its `id`, if it has one, is the cursor."""
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line[:1] not in (":", "")
        )
        cursor = fields.get("id")
        if "data" not in fields:
            return [] if cursor is None else [self._of_id(cursor)]
        content: Message = json.loads(fields["data"])
        if "event" not in fields:
            if cursor is None or int(cursor.partition(":")[2]) != content["seq"]:
                self.blame(CURSOR, f"the id of {content['seq']} is {cursor}")
            return [{"op": "event", **content}]
        if content["op"] != fields["event"] or content.get("cursor", cursor) != cursor:
            self.blame(CURSOR, f"{fields['event']} says {content}, its id is {cursor}")
        return [*self._lagging_before(content), content]

    def _lagging_before(self, content: Message) -> list[Message]:
        """Return the `lagging` that a gap or a `live` implies: an EventSource isn't told of it."""
        is_live = self.reading is not None and self.reading.is_live()
        is_behind = content["op"] == "live" or content.get("reason") == "expired"
        return [{"op": "lagging", "behind": 0}] if is_live and is_behind else []

    def _of_id(self, cursor: str) -> Message:
        op = "subscribed" if self._is_first else "heartbeat"
        self._is_first = False
        return {"op": op, "cursor": cursor}
