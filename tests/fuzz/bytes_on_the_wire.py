"""Bytes for sockets: WebSocket frames and HTTP requests, right ones and wrong ones."""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from tests.fuzz.messages import Messages

TEXT: Final = 1
BINARY: Final = 2
METHODS: Final = (
    "GET",
    "GET",
    "POST",
    "OPTIONS",
    "HEAD",
    "PUT",
    "CONNECT",
    "PRI",
    "G\0T",
    "x" * 300,
)
PATHS: Final = (
    "/v1/events",
    "/v1/events",
    "/v1/ws",
    "/",
    "/metrics",
    "/../",
    "/%",
    "//",
    "*",
    "http://x/",
)
KEYS: Final = ("channel", "since", "limit", "wait", "access_token", "x", "")
VALUES: Final = ("all", "start", "-1", "1e9", "%", "%ff", "a" * 500, "all&channel=all", "é", "\1")
HOSTS: Final = ("127.0.0.1", "127.0.0.1", "localhost", "evil.example", "", "[")
VERSIONS: Final = ("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "")
_HANDSHAKE: Final = (
    "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Bytes:
    """Makes them. Equal seeds make equal ones."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.messages = Messages(random)

    def handshake(self, *, token: bool) -> bytes:
        """Return an opening handshake."""
        form = self.random.choice(["", "Sec-WebSocket-Protocol: mesh.v1.cbor\r\n"])
        bearer = f"Authorization: Bearer {self.messages.token()}\r\n" if token else ""
        bearer = "".join(char for char in bearer if char.isprintable()) + ("\r\n" if bearer else "")
        return (_HANDSHAKE + form + bearer + "\r\n").encode("latin-1", "replace")

    def frame(self) -> bytes:
        """Return a frame, in most cases one that is allowed."""
        random, payload = self.random, self.messages.text()
        opcode = TEXT
        if random.random() < 0.4:
            opcode, payload = BINARY, self.messages.binary()
        match random.randint(0, 19):
            case 0:
                return random.randbytes(random.randint(1, 100))
            case 1:
                return frame(random.randrange(16), payload[:200], fin=random.random() < 0.5)
            case 2:
                return frame(opcode, payload, masked=False)
            case 3:
                return frame(opcode, payload, reserved=random.randrange(8))
            case 4:
                return bytes([0x81, 0xFF]) + struct.pack("!Q", random.choice([2**63, 2**40, 2**21]))
            case 5:
                return frame(TEXT, b"\xff\xfe" + payload[:10])
            case 6:
                return frame(
                    8,
                    random.choice(
                        [b"", b"\x03", struct.pack("!H", random.randrange(5000)), b"x" * 200]
                    ),
                )
            case 7:
                return b"".join(frame(9, b"ping") for _ in range(random.choice([1, 500])))
            case 8:
                parts = [payload[at : at + 7] for at in range(0, len(payload[:700]), 7)] or [b""]
                return b"".join(
                    frame(0 if at else opcode, part, fin=False) for at, part in enumerate(parts)
                )
            case 9:
                return self.messages.mutated(frame(opcode, payload))
            case _:
                return frame(opcode, payload)

    def request(self) -> bytes:
        """Return an HTTP request, seldom one that is in order."""
        random, pick = self.random, self.random.choice
        method, path = pick(METHODS), pick(PATHS)
        pairs = [f"{pick(KEYS)}={pick(VALUES)}" for _ in range(pick([0, 1, 2, 5, 200]))]
        query = f"?{'&'.join(pairs)}" if pairs else ""
        fields = [f"Host: {pick(HOSTS)}"]
        fields += [pick(self._fields()) for _ in range(pick([0, 1, 3, 150]))]
        body = self.messages.mutated(self.messages.text()) if method == "POST" else b""
        if body and random.random() < 0.9:
            length = pick([len(body), len(body), len(body) + 5, 0, -1, 10**20])
            fields.append(pick([f"Content-Length: {length}", "Transfer-Encoding: chunked"]))
        lines = [f"{method} {path}{query} {pick(VERSIONS)}", *fields, "", ""]
        whole = "\r\n".join(lines).encode("utf-8", "replace") + body
        return self.messages.mutated(whole) if random.random() < 0.3 else whole

    def _fields(self) -> list[str]:
        token = "".join(char for char in self.messages.token() if char.isprintable())
        return [
            f"Authorization: Bearer {token}",
            "Accept: text/event-stream",
            "Accept: application/x-ndjson",
            "Connection: Upgrade\r\nUpgrade: h2c",
            "Expect: 100-continue",
            "Content-Type: application/cbor",
            "Last-Event-ID: 1:1",
            "Origin: http://127.0.0.1",
            "X-Forwarded-For: 127.0.0.1, x, ,",
            f"X: {'y' * self.random.choice([1, 9_000])}",
            ": empty",
            "No colon",
            " folded",
        ]


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """Return one frame as a client sends it (RFC 6455, section 5.2)."""
    head = bytes([(fin << 7) | (reserved << 4) | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", len(payload))
    return head + (b"\0\0\0\0" if masked else b"") + payload
