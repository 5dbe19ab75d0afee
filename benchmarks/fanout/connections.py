"""Many connections that take events as fast as one core can: they count markers, nothing else.

One epoll, one buffer, no parsing. A record may be cut by a read, so the last bytes of each are
searched again with the next; an event counts once its whole record is there.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from benchmarks.fanout.dialects import Step
from benchmarks.fanout.events import MARKER, NUMBER_AT, RECORD_BYTES, TIME_AT

IN_FLIGHT = 256
"""Handshakes at the same time."""
CONNECT_WITHIN = 40.0
_READ_BYTES = 256 * 1024
_CARRY = RECORD_BYTES - 1
_AFTER_MARKER = RECORD_BYTES - len(MARKER)
_BATCH = 128
"""Sockets served before the publisher has its turn again; epoll goes on with the others then."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER 0: leaves no TIME_WAIT, of which a few cases would use up the ports."""


class _Talk:
    """A connection that is being opened."""

    def __init__(self, opened: socket.socket, steps: Sequence[Step]) -> None:
        self._socket = opened
        self._steps = iter(steps)
        self._heard = b""
        self._until: bytes | None = None

    def is_done(self) -> bool:
        """Go on with what has come; say whether the last step has been answered.

        Raises:
            ConnectionError: the server refuses.
        """
        if self._until is None:  # it is connected now
            self._next_step()
        while True:
            try:
                more = self._socket.recv(65536)
            except BlockingIOError:
                return False
            self._heard += more
            if not more:
                raise ConnectionError(f"the server closed a connection: {self._heard[:300]!r}")
            assert self._until is not None
            while self._until in self._heard:
                self._heard = self._heard.partition(self._until)[2]
                if not self._next_step():
                    return True

    def _next_step(self) -> bool:
        step = next(self._steps, None)
        if step is None:
            return False
        self._socket.sendall(step.say)
        self._until = step.until
        return True


class Connections:
    """Clients of one server; after `connect` they only listen."""

    def __init__(self, port: int) -> None:
        self.total = 0
        """Events received since `reset`."""
        self.lost = 0
        """Connections that the server closed."""
        self._address = ("127.0.0.1", port)
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._receive: dict[int, Callable[[memoryview], int]] = {}
        self._counts: dict[int, int] = {}
        self._newest: dict[int, bytearray] = {}
        self._tails: dict[int, bytearray] = {}
        self._buffer = bytearray(_CARRY + _READ_BYTES)
        self._view = memoryview(self._buffer)[_CARRY:]

    def __len__(self) -> int:
        return len(self._sockets)

    def connect(self, conversations: Sequence[Sequence[Step]]) -> None:
        """Open a connection for each of *conversations*, many at a time.

        Raises:
            TimeoutError: they weren't all answered in time.
            ConnectionError: the server closed one.
        """
        deadline = time.monotonic() + CONNECT_WITHIN
        waiting = iter(conversations)
        talking: dict[int, _Talk] = {}
        while True:
            while len(talking) < IN_FLIGHT and (steps := next(waiting, None)) is not None:
                opened = self._open()
                talking[opened.fileno()] = _Talk(opened, steps)
            if not talking:
                break
            if time.monotonic() > deadline:
                done = len(self._sockets) - len(talking)
                raise TimeoutError(f"{done:,} connected within {CONNECT_WITHIN:.0f} s")
            for number, _ in self._poll.poll(1, IN_FLIGHT):
                if number in talking and talking[number].is_done():
                    del talking[number]
        for number in self._sockets:
            self._listen(number)

    def _open(self) -> socket.socket:
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        with suppress(BlockingIOError):
            opened.connect(self._address)
        self._sockets[opened.fileno()] = opened
        self._poll.register(opened.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        return opened

    def _listen(self, number: int) -> None:
        self._poll.modify(number, select.EPOLLIN)
        self._receive[number] = self._sockets[number].recv_into
        self._tails[number] = bytearray()
        self._counts[number] = 0

    def take(self, timeout: float, latencies: list[int] | None = None) -> None:
        """Take what has come for some connections; wait up to *timeout* seconds for it.

        Args:
            latencies: Gets the age in ns of the oldest event of each read.
        """
        buffer, view, receive = self._buffer, self._view, self._receive
        counts, tails, newest = self._counts, self._tails, self._newest
        for number, _ in self._poll.poll(timeout, _BATCH):
            try:
                got = receive[number](view)
            except BlockingIOError:
                continue
            except OSError:
                got = 0
            if not got:
                self._drop(number)
                continue
            tail, end = tails[number], _CARRY + got
            start = _CARRY - len(tail)
            buffer[start:_CARRY] = tail
            found = buffer.count(MARKER, start, end - _AFTER_MARKER)
            if found:
                counts[number] += found
                self.total += found
                at = buffer.rfind(MARKER, start, end - _AFTER_MARKER)
                newest[number] = buffer[at + NUMBER_AT : at + TIME_AT]
                if latencies is not None:
                    if found > 1:
                        at = buffer.find(MARKER, start)
                    sent = int(buffer[at + TIME_AT : at + RECORD_BYTES])
                    latencies.append(time.monotonic_ns() - sent)
            tails[number] = buffer[max(start, end - _CARRY) : end]

    def _drop(self, number: int) -> None:
        self.lost += 1
        self._poll.unregister(number)
        self._sockets.pop(number).close()
        for table in (self._receive, self._tails, self._newest):
            table.pop(number, None)
        # Its count stays: it is one that misses events.

    def reset(self) -> None:
        """Count from 0 again."""
        self.total = 0
        self._newest.clear()
        for number in self._counts:
            self._counts[number] = 0

    def slowest(self) -> int:
        """Return how many events the connection with the fewest has."""
        return min(self._counts.values())

    def wrong(self, expected: Sequence[int], newest: Sequence[int]) -> int:
        """Return how many connections have another number of events, or another last one.

        Args:
            expected: For each connection, in the order in which they were opened.
            newest: The number of the last event for each.
        """
        return sum(
            counted != due or int(self._newest.get(number, b"-1")) != (last if due else -1)
            for (number, counted), due, last in zip(
                self._counts.items(), expected, newest, strict=True
            )
        )

    def close(self) -> None:
        """Cut all connections."""
        for each in self._sockets.values():
            each.close()
        self._poll.close()
