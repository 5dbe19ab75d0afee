"""What the log really held, read all the time, so that what expires or is deleted stays known.

Shares no code with our readers: unfiltered Direct Get pages as `admin`, one after the other.

Source: NATS ADR-31 (Direct Get).
"""

from __future__ import annotations

import asyncio
import bisect
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.client import Client

from jarvis_mesh.schema import SystemClock

_PAGE = 512
_EVERY = 0.03
_CLOCK = SystemClock()
_UNAVAILABLE = (OSError, nats.errors.Error, TimeoutError)


@dataclass(frozen=True, slots=True)
class Stored:
    """An event's place in the log."""

    seq: int
    subject: tuple[str, ...]
    id: str


@dataclass
class Log:
    """Everything that one log ever held, ticks aside."""

    epoch: str
    events: list[Stored] = field(default_factory=list)
    last_seq: int = 0
    """Read up to here, ticks included."""
    first_seqs: list[tuple[float, int]] = field(default_factory=list)
    """When which sequence was the log's first: monotonic time, sequence."""
    holes: list[tuple[int, int]] = field(default_factory=list)
    """Sequences that had gone before they were read: then this is not the whole truth."""

    @property
    def last_event_seq(self) -> int:
        """Sequence of the last event."""
        return self.events[-1].seq if self.events else 0

    def first_seq_at(self, moment: float) -> int:
        """Return the log's first sequence as it was seen next after *moment*."""
        index = bisect.bisect_left(self.first_seqs, (moment, 0))
        return self.first_seqs[min(index, len(self.first_seqs) - 1)][1]


class Truth:
    """Follows the log, over every restart and from epoch to epoch."""

    def __init__(self, connection: Client) -> None:
        self.logs: dict[str, Log] = {}
        self.epoch = ""
        self._connection = connection
        self._is_over = False

    @property
    def log(self) -> Log:
        """The log as it is now."""
        return self.logs[self.epoch]

    async def run(self) -> None:
        """Follow until `stop`: nats-py now and then swallows a cancellation."""
        while not self._is_over:
            # A part of the mesh is away now and then: that's what it is there for.
            with suppress(*_UNAVAILABLE):
                await self.read_on()
            await _CLOCK.sleep(_EVERY)

    def stop(self) -> None:
        """Let `run` end soon."""
        self._is_over = True

    async def read_on(self) -> int:
        """Read what is new; return the sequence that the leader said was the last.

        Raises:
            OSError, nats.errors.Error, TimeoutError: the log can't be read now.
        """
        epoch, first_seq, last_seq = await self._state()
        self.epoch = epoch
        log = self.logs.setdefault(epoch, Log(epoch))
        log.first_seqs.append((time.monotonic(), first_seq))
        while log.last_seq < last_seq and await self._read_page(log):
            pass
        return last_seq

    async def caught_up(self) -> Log:
        """Return the log once everything is read that it holds now."""
        async with asyncio.timeout(60):
            while True:
                with suppress(*_UNAVAILABLE):
                    if await self.read_on() <= self.log.last_seq:
                        return self.log
                await _CLOCK.sleep(_EVERY)

    async def _state(self) -> tuple[str, int, int]:
        reply = await self._connection.request("$JS.API.STREAM.INFO.EVENTS", timeout=1)
        answer = json.loads(reply.data)
        if "error" in answer:
            raise nats.errors.Error(str(answer["error"]))
        state = answer["state"]
        return _nanoseconds(answer["created"]), state["first_seq"], state["last_seq"]

    async def _read_page(self, log: Log) -> bool:
        """Read a page; return whether there was anything in it."""
        found = [item async for item in self._page(log.last_seq + 1)]
        for seq, subject, event_id in found:
            if seq <= log.last_seq:
                continue
            if seq > log.last_seq + 1:
                log.holes.append((log.last_seq + 1, seq - 1))
            log.last_seq = seq
            if not subject.startswith("mesh."):
                log.events.append(Stored(seq, tuple(subject.split(".")), event_id))
        return bool(found)

    async def _page(self, start_seq: int) -> AsyncIterator[tuple[int, str, str]]:
        inbox = self._connection.new_inbox()
        answers = await self._connection.subscribe(inbox)
        try:
            request = json.dumps({"seq": start_seq, "batch": _PAGE}).encode()
            await self._connection.publish("$JS.API.DIRECT.GET.EVENTS", request, reply=inbox)
            while True:
                headers: dict[str, Any] = (await answers.next_msg(2)).headers or {}
                if "Nats-Sequence" not in headers:
                    return  # the end of the batch
                yield (
                    int(headers["Nats-Sequence"]),
                    headers["Nats-Subject"],
                    headers.get("Nats-Msg-Id", ""),
                )
        finally:
            if not self._connection.is_closed:
                await answers.unsubscribe()


@asynccontextmanager
async def truth(admin_url: str) -> AsyncIterator[Truth]:
    """Connect to the log; whoever wants it followed runs it."""
    connection = Client()
    await connection.connect(
        admin_url.split(","),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        error_cb=_ignore,
    )
    try:
        yield Truth(connection)
    finally:
        await connection.close()


async def read_whole_log(admin_url: str) -> Log:
    """Return everything that the log holds."""
    async with truth(admin_url) as reader:
        return await reader.caught_up()


async def _ignore(_error: Exception) -> None:
    """The connection breaks when a server is killed: that's what it is there for."""


def _nanoseconds(created: str) -> str:
    """Return an RFC 3339 time of the server, which cuts zeros, as nanoseconds since 1970."""
    whole, _, fraction = created.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return f"{seconds}{fraction.ljust(9, '0')}"
