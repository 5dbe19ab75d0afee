"""What the log says that a terminal showed."""

from __future__ import annotations

import base64
from typing import Any

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.log_reading import read_log


def bytes_of(payload: dict[str, Any]) -> bytes:
    """Return the bytes that a terminal:output stands for."""
    if "data" in payload:
        return base64.b64decode(payload["data"])
    return str(payload["output"]).encode()


async def payloads_of(server: NatsServer, event_type: str) -> list[dict[str, Any]]:
    """Return the payloads of the log's events of one type, in order."""
    return [item.event.payload for item in await read_log(server) if item.event.type == event_type]


async def logged_output(server: NatsServer) -> bytes:
    """Return the output of all terminal:output events of the log, joined."""
    return b"".join(bytes_of(item) for item in await payloads_of(server, "terminal:output"))
