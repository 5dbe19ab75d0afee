"""A WebSocket client written from the protocol alone: `websockets`, JSON, CBOR and zstd.

It shares no code with the SDK nor with the schema, so that it finds what they agree on wrongly.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cbor2
import websockets
import zstandard
from websockets.asyncio.client import ClientConnection

Message = dict[str, Any]


class PlainClient:
    """One connection; `received` holds every message in the form that JSON has."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.received: list[Message] = []
        self._unread: deque[Message] = deque()

    async def send(self, op: str, **fields: Any) -> None:
        """Send one message, as JSON whatever the subprotocol."""
        await self.socket.send(json.dumps({"op": op, **fields}))

    async def next(self, *, within: float = 10.0) -> Message:
        """Return the next message."""
        while not self._unread:
            async with asyncio.timeout(within):
                data = await self.socket.recv()
            messages = list(parse(data))
            self.received += messages
            self._unread += messages
        return self._unread.popleft()

    async def expect(self, op: str, *, within: float = 10.0, **fields: Any) -> Message:
        """Return the next message with this op and these fields; others are passed over."""
        seen = []
        try:
            async with asyncio.timeout(within):
                while True:
                    message = await self.next(within=within)
                    seen.append(message)
                    wanted = {"op": op, **fields}
                    if all(message.get(key) == value for key, value in wanted.items()):
                        return message
        except TimeoutError:
            raise AssertionError(f"no {op} {fields} within {within} s, but {seen}") from None

    async def events(self, count: int, *, within: float = 30.0) -> list[Message]:
        """Return the next *count* events; a gap or an error among them fails."""
        events: list[Message] = []
        async with asyncio.timeout(within):
            while len(events) < count:
                message = await self.next(within=within)
                assert message["op"] not in ("gap", "error", "closing"), message
                if message["op"] == "event":
                    events.append(message)
        return events

    def seqs(self, sub: str | None = None) -> list[int]:
        """Return the sequences of all events that came for *sub*, or untagged."""
        return [
            message["seq"]
            for message in self.received
            if message["op"] == "event" and message.get("sub") == sub
        ]

    async def subscribe(self, *channels: str, sub: str = "a", **fields: Any) -> Message:
        """Subscribe and return the `subscribed` that answers."""
        await self.send("subscribe", sub=sub, channels=list(channels), id=sub, **fields)
        answer = await self.expect_answer(sub)
        assert answer["op"] == "subscribed", answer
        return answer

    async def close_code(self) -> int | None:
        """Read until the connection is closed and return the code that the gateway gave."""
        try:
            while True:
                await self.next()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd and closed.rcvd.code

    async def expect_answer(self, request_id: Any) -> Message:
        """Return the message that echoes this id."""
        while True:
            message = await self.next()
            if message.get("id") == request_id:
                return message

    async def refusal(self, op: str, **fields: Any) -> str:
        """Return the code with which a request is refused."""
        answer = await self.ask(op, **fields)
        assert answer["op"] == "error", answer
        assert answer["message"]
        return str(answer["code"])

    async def still_lives(self) -> None:
        """Fail unless the connection answers."""
        assert (await self.ask("ping"))["op"] == "pong"

    async def ask(self, op: str, **fields: Any) -> Message:
        """Send a message and return its answer."""
        request_id = fields.setdefault("id", f"ask-{len(self.received)}")
        await self.send(op, **fields)
        return await self.expect_answer(request_id)


@asynccontextmanager
async def connect(
    url: str, subprotocol: str | None = None, **options: Any
) -> AsyncIterator[PlainClient]:
    """Connect to a gateway's HTTP URL."""
    async with websockets.connect(
        f"{url.replace('http', 'ws', 1)}/v1/ws",
        subprotocols=None if subprotocol is None else [websockets.Subprotocol(subprotocol)],
        max_size=None,
        close_timeout=1,
        **options,
    ) as socket:
        yield PlainClient(socket)


def parse(data: str | bytes) -> list[Message]:
    """Return the messages of one WebSocket message."""
    if isinstance(data, str):
        return [json.loads(line) for line in data.split("\n")]
    stream = io.BytesIO(data)
    messages = []
    while stream.tell() < len(data):
        messages.append(_from_cbor(cbor2.load(stream)))
    return messages


def _from_cbor(item: Any) -> Message:
    if isinstance(item, dict):
        return item
    seq, body, *sub = item
    if body[:4] == b"\x28\xb5\x2f\xfd":
        body = zstandard.ZstdDecompressor().decompress(body, max_output_size=4 << 20)
    message = {"op": "event", "seq": seq, "event": cbor2.loads(body)}
    return message | ({"sub": sub[0]} if sub else {})
