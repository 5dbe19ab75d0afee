"""What a client says to each server until it gets events, and what it hears meanwhile.

Just enough of each protocol: WebSocket (RFC 6455), NATS's own within it, Engine.IO 4 and
Socket.IO 5. Afterwards a client only listens; no server wants an answer within the time that
a case takes (Socket.IO pings after 25 s and waits 20, uvicorn 20 and 20).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["mesh.v1.cbor", "mesh.v1.json", "nats", "socket.io", "starlette", "floor"]
Filters = Literal["one", "own", "fifty"]


@dataclass(frozen=True)
class Step:
    """Something said, and what tells that the server has answered it."""

    say: bytes
    until: bytes


def steps(
    dialect: Dialect, filters: Filters, number: int, credentials: tuple[str, str]
) -> list[Step]:
    """Return what connection *number* says."""
    if dialect == "floor":
        return [Step(b"", b"+")]
    if dialect == "starlette":
        return [Step(_upgrade("/"), b"subscribed")]
    if dialect == "nats":
        return [Step(_upgrade("/"), b"\r\n\r\n"), _nats(filters, number, credentials)]
    if dialect == "socket.io":
        subscribe = json.dumps(["subscribe", channels(filters, number)])
        return [
            Step(_upgrade("/socket.io/?EIO=4&transport=websocket"), b"0{"),
            Step(_frame(b"40"), b"40{"),
            Step(_frame(b"421" + subscribe.encode()), b"431"),
        ]
    request = {"op": "subscribe", "id": 1, "sub": "a", "channels": channels(filters, number)}
    return [
        Step(_upgrade("/v1/ws", dialect), b"\r\n\r\n"),
        Step(_frame(json.dumps(request).encode()), b"subscribed"),
    ]


def channels(filters: Filters, number: int) -> list[str]:
    """Return what connection *number* subscribes.

    The fifty are wide and narrow, shared and its own, and five of them match every event.
    """
    if filters == "one":
        return ["all"]
    if filters == "own":
        return [f"user:u{number}"]
    return [
        *("event:agent:**", "source:agent-service", "event:agent:status", "entity:a7"),
        *("event:terminal:*", "event:system:**", "event:workflow:step:*", "source:cli"),
        *(f"entity:host-{number % 50}-{place}" for place in range(12)),
        *(f"user:u{(number + place) % 1000}" for place in range(20)),
        *(f"event:terminal:output&session:s{number}-{place}" for place in range(10)),
    ]


def rooms(filters: Filters, user: str) -> list[str]:
    """Return the Socket.IO rooms that an event of *user* is for."""
    if filters == "one":
        return ["all"]
    if filters == "own":
        return [f"user:{user}"]
    return ["event:agent:**", "source:agent-service", "event:agent:status", "entity:a7"]


def _upgrade(path: str, subprotocol: str | None = None) -> bytes:
    protocol = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Version: 13\r\n{protocol}\r\n"
    ).encode()


def _frame(payload: bytes, *, opcode: int = 1) -> bytes:
    """Return one masked frame; a mask of zeros leaves the bytes as they are."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def _nats(filters: Filters, number: int, credentials: tuple[str, str]) -> Step:
    assert filters != "fifty", "nats-server sends an event once for each filter that matches"
    subject = f"live.*.*.*.*.*.u{number}.*" if filters == "own" else "live.>"
    user, password = credentials
    options = {"verbose": False, "headers": True, "protocol": 1, "user": user, "pass": password}
    lines = f"CONNECT {json.dumps(options)}\r\nSUB {subject} 1\r\nPING\r\n"
    return Step(_frame(lines.encode(), opcode=2), b"PONG")
