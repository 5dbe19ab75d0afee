"""A client that keeps its own books by the protocol's rules, and the log to compare them with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import websockets
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from tests.support.plain_client import Message, PlainClient, connect


class UnavailableError(Exception):
    """The gateway can't serve a subscription now."""


@dataclass
class Subscription:
    """One subscription's whole state: a cursor and what it got."""

    channels: Sequence[str]
    cursor: Any
    """The `since` of the next subscribe message: at first whatever the test wants."""
    filters: Sequence[str] = ()
    is_live: bool = False
    received: list[int] = field(default_factory=list)
    gaps: list[Message] = field(default_factory=list)

    @property
    def seq(self) -> int:
        return int(str(self.cursor).partition(":")[2])

    def take(self, seq: int) -> None:
        self.received.append(seq)
        self.move(seq)

    def move(self, seq: int) -> None:
        self.cursor = f"{str(self.cursor).partition(':')[0]}:{seq}"


class Oracle:
    """Follows subscriptions over any number of connections."""

    def __init__(self, **subscriptions: Subscription) -> None:
        self.subscriptions = subscriptions
        self.connections = 0
        self._client: PlainClient | None = None

    async def follow(self, url: str, subprotocol: str) -> None:
        """Connect, resume every subscription, and read until the connection ends."""
        try:
            async with connect(url, subprotocol) as client:
                self._client = client
                self.connections += 1
                for name, sub in self.subscriptions.items():
                    sub.is_live = False
                    fields = {} if sub.cursor is None else {"since": sub.cursor}
                    await client.send("subscribe", sub=name, channels=list(sub.channels), **fields)
                while True:
                    self._take(await client.next(within=60))
        except (websockets.ConnectionClosed, OSError):
            self._client = None

    def cut(self) -> None:
        """Break the connection without a goodbye."""
        if self._client is not None:
            self._client.socket.transport.abort()

    def has_all(self, last_seq: int) -> bool:
        """Say whether every subscription is live and past *last_seq*."""
        return all(sub.is_live and sub.seq >= last_seq for sub in self.subscriptions.values())

    def _take(self, message: Message) -> None:
        name = message.get("sub")
        sub = self.subscriptions[name] if name else None
        match message["op"]:
            case "event" if sub is not None:
                sub.take(message["seq"])
            case "event":
                self._take_untagged(message)
            case "subscribed" if sub is not None:
                sub.filters = message["filters"]
                sub.is_live = sub.cursor is None
                sub.cursor = message["cursor"]
            case "live" if sub is not None:
                sub.cursor = message["cursor"]
                sub.is_live = True
            case "gap" if sub is not None:
                sub.gaps.append(message)
                sub.cursor = message["cursor"]
            case "heartbeat":
                for each in self.subscriptions.values():
                    if each.is_live:
                        each.cursor = message["cursor"]
            case "error" if message["retryable"]:
                raise UnavailableError(message)
            case "error":
                raise AssertionError(message)

    def _take_untagged(self, message: Message) -> None:
        subject = subject_of(message["event"])
        for sub in self.subscriptions.values():
            if sub.is_live and sub.seq < message["seq"]:
                if any(matches(pattern, subject) for pattern in sub.filters):
                    sub.take(message["seq"])
                else:
                    sub.move(message["seq"])


def subject_of(event: dict[str, Any]) -> list[str]:
    """Return the tokens of an event whose routing values need no escapes."""
    types = event["type"].split(":")
    metadata = event.get("metadata", {})
    routing = [metadata.get(key, "_") for key in ("entity", "user", "session")]
    return [*types, *["_"] * (3 - len(types)), event["source"], *routing]


def matches(pattern: str, subject: Sequence[str]) -> bool:
    """Say whether a seven-token pattern matches."""
    tokens = pattern.split(".")
    return all(own in ("*", their) for own, their in zip(tokens, subject, strict=True))


async def read_log(jetstream: JetStreamContext) -> list[tuple[int, list[str]]]:
    """Return sequence and subject tokens of everything in the log, ticks aside."""
    consumer = await jetstream.pull_subscribe(
        "", stream="EVENTS", config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    found = []
    pending = 1
    async with asyncio.timeout(30):
        while pending:
            for message in await consumer.fetch(1000, timeout=5):
                pending = message.metadata.num_pending
                if not message.subject.startswith("mesh."):
                    found.append((message.metadata.sequence.stream, message.subject.split(".")))
    await consumer.unsubscribe()
    return found
