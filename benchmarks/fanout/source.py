"""The connection on which the load generator publishes."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

from benchmarks.fanout.events import ACK_SUBJECT


class Source:
    """Publishes without ever blocking: who publishes also reads what comes of it.

    Args:
        feed: `port`, and for NATS `user` and `password`.
    """

    def __init__(self, feed: dict[str, Any]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", feed["port"]))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unsent = b""
        if "user" in feed:
            self._log_in(feed["user"], feed["password"])
        self._socket.setblocking(False)

    def _log_in(self, user: str, password: str) -> None:
        options = {"verbose": False, "headers": True, "user": user, "pass": password}
        lines = f"CONNECT {json.dumps(options)}\r\nSUB {ACK_SUBJECT} 1\r\nPING\r\n"
        self._socket.sendall(lines.encode())
        answer = b""
        while b"PONG" not in answer:
            more = self._socket.recv(65536)
            if not more or b"-ERR" in more:
                raise ConnectionError(f"NATS refuses the publisher: {more!r}")
            answer += more

    def publish(self, data: bytes) -> None:
        """Send *data*, at once or with what comes next."""
        self._unsent += data
        self.service()

    def service(self) -> None:
        """Send what is unsent and take the acknowledgements; to be called often."""
        if self._unsent:
            with suppress(BlockingIOError):
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        try:
            heard = self._socket.recv(1 << 20)
        except BlockingIOError:
            return
        if b"PING\r\n" in heard:
            self._unsent += b"PONG\r\n"
        if not heard or b'"error"' in heard or b"-ERR" in heard:
            raise ConnectionError(f"the server doesn't take the events: {heard[:300]!r}")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()
