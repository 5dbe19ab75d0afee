"""What was asked of a gateway and waits for an answer, over connections that come and go.

It has a connection of its own: a reader that is paused because its user takes events slowly
couldn't see the answers, and a user who publishes within `async for` would wait for ever.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jarvis_mesh.client.formats import Format, Item
from jarvis_mesh.schema import wire
from jarvis_mesh.schema.errors import (
    MeshError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
    error_from_wire,
)
from jarvis_mesh.schema.wire import MAX_MESSAGE_BYTES, Welcome

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Call:
    """One thing that was asked."""

    name: str
    """What errors call it: "the event 018b…"."""
    doubt: str
    """What can be said when it was sent and no answer came: "it may be in the log"."""
    is_repeatable: bool
    """Whether it may be sent again on the next connection: if it can't be done twice."""
    message: str | bytes = b""
    answer: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """A sequence, or what a service said."""
    was_sent: bool = False

    def fail(self, error: MeshError) -> None:
        """Let who waits know that there'll be no answer. Idempotent."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def in_doubt(self, reason: str) -> OutcomeUnknownError:
        """Return the error that says *reason* and what it leaves open."""
        return OutcomeUnknownError(f"no answer for {self.name}: {reason}; {self.doubt}")


class Calls:
    """All that waits: the peer of a connection that subscribes to nothing.

    Args:
        say: Sends an encoded message, if there is a connection.
        form: What encodes it.
        report: Is told of every try to connect, or to renew the token, that failed.
    """

    def __init__(
        self,
        say: Callable[[str | bytes], None],
        form: Format,
        report: Callable[[MeshError], None],
    ) -> None:
        self.trouble = "it has not connected yet"
        """Why something wasn't sent, if it wasn't."""
        self._say = say
        self._form = form
        self._report = report
        self._connected = asyncio.Event()
        self._end: MeshError | None = None
        self._max_bytes = MAX_MESSAGE_BYTES
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}

    @contextmanager
    def asking(self, call: Call, request_for: Callable[[int], wire.Request]) -> Iterator[Call]:
        """Send *call*, now or when there is a connection; within, its answer can come.

        Args:
            call: New.
            request_for: Returns what to send, given its id.

        Raises:
            TooLargeError: the gateway wouldn't read it.
            MeshError: everything is over.
        """
        if self._end is not None:
            raise self._end
        number = next(self._numbers)
        call.message = self._form.encode(request_for(number))
        self._check_size(call)
        self._calls[number] = call
        try:
            if self._connected.is_set():
                self._send(call)
            yield call
        finally:
            del self._calls[number]

    async def connected(self) -> None:
        """Return while there is a connection.

        Raises:
            MeshError: everything is over.
        """
        while not self._connected.is_set() and self._end is None:
            await self._connected.wait()
        if self._end is not None:
            raise self._end

    def too_late(self, call: Call, within: float) -> MeshError:
        """Return the error for *call*, which got no answer *within* so many seconds."""
        if call.was_sent:
            return call.in_doubt(f"none came within {within:g} s")
        return UnavailableError(f"{call.name} couldn't be sent within {within:g} s: {self.trouble}")

    def close(self, error: MeshError) -> None:
        """Tell everybody who waits, or comes later, of *error*. Idempotent."""
        self._end = self._end or error
        for call in self._calls.values():
            call.fail(call.in_doubt(error.message) if call.was_sent else error)
        self._connected.set()  # who waits for one can stop

    # What the connection says

    def opened(self, welcome: Welcome) -> None:
        """Send what has no answer yet."""
        self._connected.set()
        self.trouble = "too many others wait for their answers"
        self._max_bytes = welcome.limits.message_bytes
        for call in self._calls.values():
            if not call.answer.done():
                self._send(call)

    def cut(self, reason: str) -> None:
        """Note that the connection is gone; what can be sent again waits for the next one."""
        self._connected.clear()
        self.trouble = reason
        for call in self._calls.values():
            if call.was_sent and not call.is_repeatable:
                call.fail(call.in_doubt(reason))

    def failed(self, error: MeshError) -> None:
        """Note why there is no connection."""
        if not self._connected.is_set():
            self.trouble = error.message
        self._report(error)

    def receive(self, item: Item) -> None:
        """Hand an answer to who waits for it."""
        match item:
            case (
                wire.Published(id=int() as number, seq=answer)
                | wire.Response(id=int() as number, data=answer)
            ) if call := self._calls.get(number):
                if not call.answer.done():
                    call.answer.set_result(answer)
            case wire.Error(id=int() as number) if call := self._calls.get(number):
                call.fail(error_from_wire(item.code, item.message))
            case wire.Error(id=None):
                log.warning("the gateway says %s: %s", item.code, item.message)
            case _:
                pass  # heartbeats, and answers that came too late

    def _check_size(self, call: Call) -> None:
        message = call.message
        size = len(message) if isinstance(message, bytes) else len(message.encode())
        if size > self._max_bytes:
            raise TooLargeError(
                f"{call.name} takes {size:,} bytes, over the gateway's {self._max_bytes:,}: "
                "send a reference to what is large"
            )

    def _send(self, call: Call) -> None:
        call.was_sent = True
        self._say(call.message)


def disconnected() -> UnavailableError:
    """Return the error for what is asked of a `Mesh` that its user ended."""
    return UnavailableError("this Mesh is disconnected; make a new one")
