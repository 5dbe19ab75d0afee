"""Hostile WebSocket connections: frames that lie, and messages of nonsense in good frames.

Source: RFC 6455.
"""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Callable, Sequence
from typing import Final

from tests.fuzz.attack import Attack, Ending
from tests.fuzz.values import KIB, flipped, message, nonsense, to_cbor, to_json, token

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
MIB: Final = 1024 * KIB
SPREAD: Final = 0.005
"""Seconds between the pieces of what comes in pieces."""


def frame(
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = b"\x00\x00\x00\x00",
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """Return a frame from a client.

    Args:
        length: What it says of its length, if not the truth.
        width: Bytes that the length takes, 0, 2 or 8; as few as possible by default.
    """
    said = len(payload) if length is None else length
    width = width if width is not None else 0 if said < 126 else 2 if said < 1 << 16 else 8
    head = bytes([(fin << 7) | (reserved << 4) | opcode])
    masked = 0 if mask is None else 0x80
    head += bytes([masked | (said & 0x7F if width == 0 else 126 if width == 2 else 127)])
    head += struct.pack(">H", said & 0xFFFF) if width == 2 else b""
    head += struct.pack(">Q", said) if width == 8 else b""
    if mask is None:
        return head + payload
    if any(mask):
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


def handshake(dice: random.Random, tokens: Sequence[str], *, subprotocol: str) -> bytes:
    """Return a request for a WebSocket that is in order."""
    key = base64.b64encode(dice.randbytes(16)).decode()
    bearer = f"Authorization: Bearer {dice.choice(tokens)}\r\n" if dice.random() < 0.8 else ""
    return (
        "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Protocol: {subprotocol}\r\n{bearer}\r\n"
    ).encode()


def session(dice: random.Random, tokens: Sequence[str], subprotocol: str) -> list[bytes]:
    """Return the frames of a client that says this and that."""
    frames = []
    for _ in range(dice.randint(1, 12)):
        value = nonsense(dice) if dice.random() < 0.1 else message(dice, tokens)
        if subprotocol.endswith("cbor") and dice.random() < 0.7:
            frames.append(frame(to_cbor(dice, value), BINARY))
        else:
            frames.append(frame(to_json(dice, value).encode(errors="surrogatepass"), TEXT))
    return frames


def socket_attack(dice: random.Random, tokens: Sequence[str]) -> Attack:
    """Return an attack by WebSocket."""
    subprotocol = dice.choice(("mesh.v1.json", "mesh.v1.cbor"))
    make = dice.choice(_KINDS)
    frames = make(dice, tokens, subprotocol)
    opening = handshake(dice, tokens, subprotocol=subprotocol)
    endings = (Ending.HALF_CLOSE,) * 6 + (Ending.RESET, Ending.DEAF)
    kind = f"socket: {make.__name__.strip('_')}"
    ending = dice.choice(endings)
    if dice.random() < 0.15:  # all in one segment, as far as it goes
        return Attack(kind, [opening + b"".join(frames)], ending)
    if dice.random() < 0.15:
        return Attack(kind, [opening, *_in_pieces(dice, b"".join(frames))], ending, SPREAD, True)
    return Attack(kind, [opening, b"".join(frames)], ending, waits=True, must_answer=True)


def _in_pieces(dice: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(10))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# Kinds. Each returns what is sent after the handshake.


def _says_nonsense(dice: random.Random, tokens: Sequence[str], subprotocol: str) -> list[bytes]:
    return session(dice, tokens, subprotocol)


def _mutates(dice: random.Random, tokens: Sequence[str], subprotocol: str) -> list[bytes]:
    frames = session(dice, tokens, subprotocol)
    match dice.randrange(4):
        case 0:
            return [flipped(dice, b"".join(frames))]
        case 1:
            return [*frames, frames[0][: dice.randrange(len(frames[0]))]]
        case 2:
            return [dice.choice(frames) for _ in range(2 * len(frames))]
        case _:
            return dice.sample(frames, len(frames))


def _breaks_frames(dice: random.Random, _tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    ping = b'{"op":"ping"}'
    return [
        frame(ping),
        dice.choice(
            (
                frame(ping, dice.randrange(16)),
                frame(ping, reserved=dice.randint(1, 7)),
                frame(ping, mask=None),
                frame(ping, mask=dice.randbytes(4)),
                frame(ping, length=len(ping) + dice.randint(-5, 5)),
                frame(ping, length=100, width=2),
                frame(ping, length=2**63 + 5, width=8),
                frame(ping, length=2**62, width=8),
                frame(ping, length=MIB + 1, width=8),
                frame(ping, PING, length=126, width=2),
                frame(b"x" * 126, PING),
                frame(b"x", PING, fin=False),
                frame(b"", CONT),
                dice.randbytes(dice.randrange(1, 200)),
            )
        ),
        frame(ping),
    ]


def _fragments(dice: random.Random, _tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    count = dice.choice((2, 50, 5_000))
    size = dice.choice((0, 1, 300))
    opcode = dice.choice((TEXT, BINARY))
    parts = [frame(b"\xc3" * size, opcode, fin=False)]
    parts += [frame(b"\xa9" * size, CONT, fin=False) for _ in range(count)]
    parts.insert(dice.randrange(len(parts)), frame(b"between", dice.choice((PING, TEXT, CLOSE))))
    return parts + ([frame(b"", CONT)] if dice.random() < 0.5 else [])


def _not_utf8(dice: random.Random, _tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    text = dice.choice(
        (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f", b"\xc0\x80", b"\xf4\x90\x80\x80")
    )
    whole = [frame(b'{"op":"' + text + b'"}')]
    split = [frame(b'{"op":"\xf0\x9f', fin=False), frame(text, CONT), frame(b'{"op":"ping"}')]
    return dice.choice((whole, split))


def _closes_oddly(dice: random.Random, _tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    code = dice.choice(
        (0, 1, 999, 1000, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4999, 5000, 65535)
    )
    reason = dice.choice((b"", b"bye", b"\xff", b"x" * 123, b"x" * 124))
    close = dice.choice((frame(code.to_bytes(2, "big") + reason, CLOSE), frame(b"\x03", CLOSE)))
    return [close, frame(b'{"op":"ping"}'), close]


def _floods(dice: random.Random, _tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    return dice.choice(
        (
            [frame(b"x" * dice.choice((0, 125)), PING)] * 5_000,
            [frame(b"", PONG)] * 5_000,
            [frame(b"")] * 5_000,
            [frame(b'{"op":"ping"}\n' * 2_000)],
            [frame(b"\n" * MIB)],
            [frame(b"{\n" * 5_000)],
            [frame(b"\x80" * dice.choice((5_000, 20_000)), BINARY)],
        )
    )


def _large(dice: random.Random, _tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    head = b'{"op":"publish","event":{"type":"agent:message","payload":{"agentId":"a","message":'
    return dice.choice(
        (
            [frame(b"[" + b"[]," * 300_000 + b"[]]")],
            [frame(head + b"[" + b"1," * 400_000 + b"1]}}}")],
            [frame(head + b"[" + b"{}," * 250_000 + b"{}]}}}")],
            [frame(b"[" * MIB)],
            [frame(b"9" * MIB)],
            [frame(b"\x9a\x00\x0f\xff\x00" + b"\x80" * 0xFFF00, BINARY)],
            [frame(b"x" * (MIB + 1))],
            [frame(b'"' + b"\\u00e9" * 170_000 + b'"')],
            [frame(b'{"op":"subscribe","sub":"a","channels":[' + b'"all",' * 150_000 + b'""]}')],
        )
    )


def _churns(dice: random.Random, tokens: Sequence[str], _subprotocol: str) -> list[bytes]:
    auth = b'{"op":"auth","token":"%b"}' % token(dice, tokens).encode(errors="replace")
    frames = [frame(auth)]
    for number in range(dice.choice((20, 200))):
        since = dice.choice(
            (b"", b',"since":"start"', b',"since":"last"', b',"since":{"seconds":9}')
        )
        channel = dice.choice((b"all", b"user:mallory", b"entity:%d" % number, b"event:agent:**"))
        frames.append(
            frame(b'{"op":"subscribe","sub":"s","channels":["' + channel + b'"]' + since + b"}")
        )
        frames.append(frame(b'{"op":"unsubscribe","sub":"s"}'))
    return frames


_Make = Callable[[random.Random, Sequence[str], str], list[bytes]]
_KINDS: Final[tuple[_Make, ...]] = (
    *(_says_nonsense,) * 6,
    *(_mutates, _mutates, _breaks_frames, _breaks_frames, _fragments, _not_utf8, _closes_oddly),
    *(_floods, _large, _churns),
)
