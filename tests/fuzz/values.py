"""Messages of nonsense: each op with its keys missing, mistyped, huge, nested, or just right.

A message is made by a grammar, so that most of it is right and what is wrong gets far.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any, Final

import cbor2

KIB: Final = 1024
DEPTH: Final = 10_000
CUT: Final = 0.15
"""Share of encoded messages that are cut somewhere."""

CHANNELS: Final = (
    *("all", "shared", "event:**", "event:agent:**", "event:agent:*", "event:*:*:*", "agent.>"),
    *("user:mallory", "user:%2a", "user:*", "user:honest0", "session:s&user:u", "source:%FF"),
    *("event:", ":", "", "&", "a&b", "event:agent:**&user:x&user:y", "live.>", "$JS.>", "mesh.>"),
    *("agent.*.*.*.*.*.*.*", "agent..created", ">", "*", "%00", "user:\x00", "user:\ud800"),
    *("event:agent:created&entity:" + "%41" * 200, "é" * 64, "user:" + "x" * 4 * KIB),
)
CURSORS: Final = (
    *("start", "last", None, "", "0:0", "1:1", "9" * 400, f"1:{2**64}", f"{2**64}:1", "-1:-1"),
    *("2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1:1:1"),
    *("2026-02-30T00:00:00Z", "1e3", {"seconds": 5}, {"seconds": -1}, {"seconds": 1e400}),
    *({"seconds": 2**63}, {"seconds": "5"}, {"seconds": True}, {"minutes": 1}, {}, [], 5, math.nan),
)
IDS: Final = (
    0,
    -1,
    2**53,
    2**64,
    1.5,
    "",
    "x" * 65,
    "\ud800",
    None,
    True,
    [],
    {},
    -(2**80),
    "é" * 40,
)
TYPES: Final = (
    *("agent:created", "agent:message", "terminal:output", "workflow:started", "model:usage"),
    *("mesh:tick", "live:x", "agent", "agent:", "a:b:c:d", "AGENT:created", "agent:created\n", ""),
)
SERVICES: Final = ("terminal", "agent", "nobody", "a.b", "*", ">", "", "x" * 129, "$JS")


def nonsense(dice: random.Random, depth: int = 3) -> Any:
    """Return any value that JSON or CBOR can carry, or nearly."""
    scalars = (
        *(None, True, False, 0, -1, 2**53, 2**63, -(2**64), 2**200, 0.1, -0.0, 1e308, math.nan),
        *(math.inf, "", "\x00", "\ud800", "é", "x" * 200, "\u202e", "__proto__", "$ref"),
    )
    kind = dice.randrange(8 if depth else 5)
    if kind == 0:
        return dice.choice(CHANNELS)
    if kind == 1:
        return "x" * dice.choice((10, KIB, 64 * KIB))
    if kind == 5:
        return [nonsense(dice, depth - 1) for _ in range(dice.randrange(6))]
    if kind == 6:
        return {str(nonsense(dice, 0))[:80]: nonsense(dice, depth - 1) for _ in range(4)}
    if kind == 7:
        return [dice.choice(scalars)] * dice.choice((100, 10_000))
    return dice.choice(scalars)


def message(dice: random.Random, tokens: Sequence[str]) -> dict[str, Any]:
    """Return a message of which something may be wrong.

    Args:
        tokens: Valid ones.
    """
    made = _right(dice, tokens)
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        key = dice.choice(list(made))
        match dice.randrange(3):
            case 0:
                made.pop(key)
            case 1:
                made[key] = nonsense(dice)
            case _:
                made[str(nonsense(dice, 0))[:50]] = nonsense(dice)
        made = made or {"op": "ping"}
    return made


def _right(dice: random.Random, tokens: Sequence[str]) -> dict[str, Any]:
    op = dice.choice(
        ("auth", "subscribe", "subscribe", "unsubscribe", "publish", "request", "ping")
    )
    made: dict[str, Any] = {"op": op, "id": dice.choice((*range(8), *IDS))}
    if op == "auth":
        made["token"] = token(dice, tokens)
    if op in ("subscribe", "unsubscribe"):
        made["sub"] = dice.choice("abcdefgh")
    if op == "subscribe":
        made["channels"] = [dice.choice(CHANNELS) for _ in range(dice.choice((1, 1, 2, 101)))]
        made["since"] = dice.choice(CURSORS)
        if dice.random() < 0.2:
            made["conflate_ms"] = dice.choice((1, 50, 60_000, 0, -1, 2**70, 0.5, "1"))
    if op == "publish":
        made["event"] = event(dice)
    if op == "request":
        made |= {"service": dice.choice(SERVICES), "method": dice.choice(("write", "*", "", "a b"))}
        made |= {"data": nonsense(dice), "timeout_ms": dice.choice((1, 50, 60_000, 0, "5", 2**70))}
        made["timeout_ms"] = made["timeout_ms"] if dice.random() < 0.3 else 50
    return made


def event(dice: random.Random) -> dict[str, Any]:
    """Return an event as clients publish them, of which something may be wrong."""
    payload = {"agentId": "a", "terminalId": "t", "output": "x", "message": nonsense(dice)}
    made: dict[str, Any] = {"type": dice.choice(TYPES), "payload": payload}
    if dice.random() < 0.3:
        made[dice.choice(("id", "metadata", "payload", "type", "timestamp"))] = nonsense(dice)
    if dice.random() < 0.3:
        made["metadata"] = {dice.choice(("entity", "session", "user", "base", "x")): nonsense(dice)}
    return made


def token(dice: random.Random, tokens: Sequence[str]) -> str:
    """Return a token that may be valid, cut, changed, unsigned, or huge."""
    valid = dice.choice(tokens)
    at = dice.randrange(len(valid))
    head, body, signature = valid.split(".")
    return dice.choice(
        (
            *(valid, valid, valid[:at], valid[:at] + "A" + valid[at + 1 :], f"{head}.{body}.", ""),
            *(f"{head}.{body}", f".{body}.{signature}", valid * 100, "." * 5_000, "é", "\x00"),
            f"eyJhbGciOiJub25lIn0.{body}.",  # {"alg":"none"}
            f"eyJhbGciOiJSUzI1NiJ9.{body}.{signature}",  # {"alg":"RS256"}
            f"eyJhbGciOlsxXX0.{body}.{signature}",  # {"alg":[1]}
            f"W10.{body}.{signature}",  # []
        )
    )


def to_json(dice: random.Random, value: Any) -> str:
    """Return *value* as JSON, or as what isn't quite JSON."""
    text = json.dumps(value, ensure_ascii=dice.random() < 0.5)
    match dice.randrange(12):
        case 0:
            text = text.replace("{", '{"op":"ping","op":"publish",', 1)
        case 1:
            text = text.replace(
                ": ", f": {dice.choice(('1e400', '-0', '01', '.5', '1E-999'))}, ", 1
            )
        case 2:
            opening = dice.choice(("[", '{"a":', '{"op":"publish","event":{"payload":['))
            text = opening * DEPTH
        case 3:
            text = text.replace('"', dice.choice(('\\"', "'", '"\\ud800', '"\\u0000')), 1)
        case 4:
            text = f"{text}\n{text}\n \n\r\n{text}"
    return text[: dice.randrange(len(text) + 1)] if dice.random() < CUT else text


def to_cbor(dice: random.Random, value: Any) -> bytes:
    """Return *value* as CBOR, or as what isn't quite CBOR (RFC 8949)."""
    try:
        data = cbor2.dumps(value)
    except (UnicodeEncodeError, cbor2.CBOREncodeError):  # half a surrogate pair
        data = b"\xa1\x62op\x64ping"
    match dice.randrange(12):
        case 0:
            data = bytes([0xC0 | dice.randrange(32)]) + dice.randbytes(2) + data
        case 1:
            data = (
                dice.choice((b"\x9f", b"\xbf", b"\x7f", b"\x5f")) * dice.choice((1, DEPTH)) + data
            )
        case 2:
            data = b"\xd8\x1c\x82\x01\xd8\x1d\x00"  # shareable list that holds itself
        case 3:
            data = b"\xc3\x5a\x00\x10\x00\x00" + bytes(dice.choice((8, 64 * KIB)))  # bignum, cut
        case 4:
            data = dice.choice((b"\x9b", b"\xbb", b"\x7b", b"\x5b")) + b"\x7f" + b"\xff" * 7 + data
        case 5:
            data = b"\x81" * DEPTH + data
        case 6:
            data = data + data + bytes([dice.randrange(256)]) + data
        case 7:
            data = b"\xa2\x62op\x64ping\x62op\x64ping"
        case 8:
            data = bytes([0xA1, 0x80, 0x01]) + data  # a list as a key
        case 9:
            data = flipped(dice, data)
    return data[: dice.randrange(len(data) + 1)] if dice.random() < CUT else data


def flipped(dice: random.Random, data: bytes) -> bytes:
    """Return *data* with some of its bytes changed."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4) if changed else 0):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)
