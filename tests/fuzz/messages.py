"""Messages of the protocol, and what is nearly one: made at random from a seed."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import cbor2

from tests.support.tokens import token_for

WORDS: Final = (
    "all",
    "shared",
    "event:agent:**",
    "user:bob",
    "agent.>",
    "session:s&user:u",
    "a",
    "",
)
ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 2**53, -(2**63), 2**64, 10**400, 1.5, float("nan"), float("inf")),
    *("", " ", "\u0000", "\ud800", "é" * 100, "x" * 5_000, "all", "%", "%zz", "a" * 2_000),
    *([], {}, [[]], {"": ""}, {"op": "ping"}, [None] * 100, ["all"] * 101, {"seconds": 1e308}),
)
OPS: Final = (
    "auth",
    "subscribe",
    "unsubscribe",
    "publish",
    "request",
    "ping",
    "heartbeat",
    "",
    "x" * 200,
)


class Messages:
    """Makes them. Equal seeds make equal ones."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def usual(self) -> dict[str, Any]:
        """Return a message that a gateway may well carry out."""
        pick, number = self.random.choice, self.random.randint(0, 5)
        match pick(OPS):
            case "auth":
                return {"op": "auth", "id": number, "token": self.token()}
            case "subscribe":
                since = pick(
                    [None, "start", "last", {"seconds": 60}, "1:1", "2030-01-01T00:00:00Z"]
                )
                made = {"op": "subscribe", "sub": f"s{number}", "channels": [pick(WORDS)]}
                return made | ({} if since is None else {"since": since})
            case "unsubscribe":
                return {"op": "unsubscribe", "sub": f"s{number}"}
            case "publish":
                payload = {"agentId": "a", "status": "x", "odd": self.value()}
                return {"op": "publish", "event": {"type": "agent:status", "payload": payload}}
            case "request":
                data = self.value()
                return {
                    "op": "request",
                    "service": "terminal",
                    "method": "x",
                    "data": data,
                    "timeout_ms": 50,
                }
            case _:
                return {"op": "ping", "id": number}

    def odd(self) -> Any:
        """Return something of the wrong form."""
        if self.random.random() < 0.2:
            return self.value()
        message = self.usual()
        for _ in range(self.random.randint(1, 3)):
            key = self.random.choice([*message, "op", "id", "sub", "since", "x"])
            if self.random.random() < 0.3:
                message.pop(key, None)
            else:
                message[key] = self.value()
        return message

    def value(self, depth: int = 3) -> Any:
        """Return any value, nested a little."""
        if depth and self.random.random() < 0.3:
            inner = [self.value(depth - 1) for _ in range(self.random.randint(0, 4))]
            return inner if self.random.random() < 0.5 else {str(each)[:20]: each for each in inner}
        return self.random.choice(ODD)

    def token(self) -> str:
        """Return a token, or what is nearly one."""
        token = token_for("fuzz", subscribe=["all"], publish=["all"], request=["*.*"], expires_in=5)
        match self.random.randint(0, 5):
            case 0:
                return self.mutated(token.encode()).decode("latin-1")
            case 1:
                return token[: self.random.randint(0, len(token))]
            case 2:
                return ".".join(self.random.sample(token.split("."), 3))
            case _:
                return token

    def text(self) -> bytes:
        """Return a text message: lines, most of them nearly right."""
        lines = [self._line() for _ in range(self.random.choice([1, 1, 2, 5, 50]))]
        return b"\n".join(lines)

    def binary(self) -> bytes:
        """Return a CBOR sequence, often cut or changed."""
        items = b"".join(self._item() for _ in range(self.random.choice([1, 1, 3, 20])))
        return self.mutated(items) if self.random.random() < 0.5 else items

    def mutated(self, data: bytes) -> bytes:
        """Return *data* with a few bytes changed, cut out or doubled."""
        changed = bytearray(data)
        for _ in range(self.random.randint(1, 8)):
            if not changed:
                break
            place = self.random.randrange(len(changed))
            match self.random.randint(0, 3):
                case 0:
                    changed[place] = self.random.randrange(256)
                case 1:
                    del changed[place : place + self.random.randint(1, 8)]
                case 2:
                    changed[place:place] = changed[place : place + 8]
                case _:
                    changed[place] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def _line(self) -> bytes:
        match self.random.randint(0, 9):
            case 0:
                return b'{"op":' + b"[" * self.random.choice([10, 10_000, 100_000])
            case 1:
                return b'{"op":"ping","op":"auth","id":1e400}'
            case 2:
                return self.random.randbytes(self.random.randint(0, 200)).replace(b"\n", b"")
            case 3 | 4:
                return _json(self.usual())
            case _:
                line = _json(self.odd())
                return self.mutated(line) if self.random.random() < 0.3 else line

    def _item(self) -> bytes:
        match self.random.randint(0, 9):
            case 0:
                return b"\x81" * self.random.choice([10, 10_000, 100_000])
            case 1:
                return self.random.choice(
                    [
                        b"\xd8\x1d\x00",
                        b"\xc2\x58\x40" + b"\xff" * 64,
                        b"\x9f\x9f\x9f",
                        b"\xbf\x61",
                        b"\xfb",
                    ]
                )
            case 2:
                return b"\x9a\xff\xff\xff\xff" + b"\x00" * 10
            case 3:
                return b"\x5b" + b"\x7f" * 8
            case _:
                return _cbor(self.usual() if self.random.random() < 0.4 else self.odd())


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value).encode(errors="surrogatepass")
    except ValueError:
        return repr(value).encode(errors="surrogatepass")


def _cbor(value: Any) -> bytes:
    try:
        return cbor2.dumps(value)
    except (UnicodeEncodeError, cbor2.CBOREncodeError, OverflowError):
        return b"\x61\xff"
