"""Ports for processes that are killed and started again where they were."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on.

    It lies below those that the kernel gives to outgoing connections: one of those could take
    it while the process that owns it is away.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
