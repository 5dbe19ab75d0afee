"""Hostile HTTP: requests that lie, that never end, that are a bit of another protocol.

Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from tests.fuzz.attack import Attack, Ending
from tests.fuzz.frames import MIB, frame, handshake
from tests.fuzz.values import CHANNELS, CURSORS, event, flipped, to_cbor, to_json, token

METHODS: Final = (
    *("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "get", ""),
    *("GET ", "X" * 5_000, "G\x00T", "PROPFIND", "M-SEARCH"),
)
TARGETS: Final = (
    *(
        "/",
        "/v1/events",
        "/v1/ws",
        "/metrics",
        "/healthz",
        "/readyz",
        "*",
        "//",
        "/../../etc/passwd",
    ),
    *(
        "http://127.0.0.1/v1/events",
        "http://127.0.0.1",
        "http://[::1",
        "//evil/v1/ws",
        "/%",
        "/%zz",
    ),
    *("/v1/events?channel=%FF%FE", "/v1/events?since=%00", "/v1/events?" + "channel=all&" * 3_000),
    *("/v1/events?channel=" + "a" * 60_000, "/\x7f", "/é", "/v1/events#x", "/v1/events?limit=1e9"),
    *(
        "/v1/events?limit=0&wait=1e9",
        "/v1/events?wait=-1",
        "/v1/events?x=1;y",
        "?",
        "",
        "/ /",
        "/\t",
    ),
)
VERSIONS: Final = (
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/0.9",
    "HTTP/2.0",
    "HTTP/9.9",
    "HTP",
    "",
)
FIELDS: Final = (
    *("Host: 127.0.0.1", "Host: evil.example", "Host:", "Host: 127.0.0.1\r\nHost: 127.0.0.1"),
    *("Expect: 100-continue", "Expect: nonsense", "Connection: close", "Connection: upgrade, te"),
    *("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\nConnection: Upgrade, HTTP2-Settings", "X: y"),
    *("Upgrade: websocket\r\nConnection: Upgrade", "Accept: text/event-stream", "Accept: ,;,q=1"),
    *("Accept: application/x-ndjson", "Last-Event-ID: \x01", "Last-Event-ID: " + "9" * 9_000),
    *(
        "Origin: null",
        "Origin: http://evil.example",
        "X: " + "x" * 70_000,
        "Cookie: " + "a=b; " * 900,
    ),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: x"),
    *(
        "Content-Length: 5",
        "Content-Length: -1",
        "Content-Length: 9" + "9" * 30,
        "Content-Length: 1, 1",
    ),
    *(
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        " folded",
        "NoColon",
        ": empty",
        "A\x00: b",
    ),
    *("Content-Type: application/cbor", "Content-Type: \xff", "X-Forwarded-For: 1.2.3.4, , x"),
    *("Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 99", "Range: bytes=0-", "TE: trailers"),
)


def http_attack(dice: random.Random, tokens: Sequence[str]) -> Attack:
    """Return an attack by HTTP."""
    make = dice.choice(_KINDS)
    attack = make(dice, tokens)
    return Attack(f"http: {make.__name__.strip('_')}", *attack)


_Rest = tuple[Sequence[bytes], Ending, float]


def _head(dice: random.Random, tokens: Sequence[str], *fields: str) -> bytes:
    chosen = [*fields, *(dice.choice(FIELDS) for _ in range(dice.randrange(4)))]
    if dice.random() < 0.6:
        chosen.append(f"Authorization: Bearer {token(dice, tokens)}")
    if dice.random() < 0.8:
        chosen.insert(0, "Host: 127.0.0.1")
    line = f"{dice.choice(METHODS[:3])} {dice.choice(TARGETS)} HTTP/1.1"
    if dice.random() < 0.3:
        line = f"{dice.choice(METHODS)} {dice.choice(TARGETS)} {dice.choice(VERSIONS)}"
    end = dice.choice(("\r\n", "\r\n", "\r\n", "\n"))
    return (end.join([line, *chosen]) + end + end).encode("latin-1", errors="replace")


def _wrong_requests(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    head = _head(dice, tokens)
    return [flipped(dice, head) if dice.random() < 0.3 else head], _ending(dice), 0


def _pipelines(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    good = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    opening = handshake(dice, tokens, subprotocol="mesh.v1.json")
    parts = [good, _head(dice, tokens), opening, frame(b'{"op":"ping"}'), good * 100]
    return [b"".join(dice.sample(parts, dice.randint(2, 5)))], _ending(dice), 0


def _head_bombs(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    start = b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    bomb = dice.choice(
        (
            *(b"X: y\r\n" * 20_000, b"X" * MIB, b"X: " + b"y" * MIB, b"\r\n" * 100_000),
            *(b"X:" + b" " * MIB, b"X: y\r\n z\r\n" * 5_000),
        )
    )
    return [start, bomb, b"\r\n\r\n"], _ending(dice), 0


def _lies_about_bodies(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    body = to_json(dice, event(dice)).encode(errors="surrogatepass")
    chunked = dice.choice(
        (
            *(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), b"ffffffffffffffff\r\n" + body),
            *(
                b"5\r\nabc\r\n0\r\n\r\n",
                b"-1\r\n",
                b"0x5\r\nabcde\r\n0\r\n\r\n",
                b"5;" + b"x" * 50_000,
            ),
            *(b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n", b"0\r\n" + b"T: v\r\n" * 5_000 + b"\r\n"),
        )
    )
    if dice.random() < 0.5:
        return [_post(tokens, dice, "Transfer-Encoding: chunked"), chunked], _ending(dice), 0
    length = dice.choice((0, len(body) + 9, max(0, len(body) - 9), 2 * MIB, 2**63, 10**40))
    return [_post(tokens, dice, f"Content-Length: {length}"), body], _ending(dice), 0


def _posts_nonsense(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    value = [event(dice) for _ in range(5)] if dice.random() < 0.4 else event(dice)
    if dice.random() < 0.5:
        kind, body = "application/cbor", to_cbor(dice, value)
    else:
        kind, body = "application/json", to_json(dice, value).encode(errors="surrogatepass")
    head = _post(tokens, dice, f"Content-Type: {kind}\r\nContent-Length: {len(body)}")
    return [head + body], _ending(dice), 0


def _post(tokens: Sequence[str], dice: random.Random, fields: str) -> bytes:
    return (
        "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {dice.choice(tokens)}\r\n{fields}\r\n\r\n"
    ).encode()


def _asks_for_feeds(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    accept = dice.choice(("text/event-stream", "application/x-ndjson", "application/json", "*/*"))
    channel = _percent(dice.choice(CHANNELS))
    since = _percent(str(dice.choice(CURSORS)))
    more = dice.choice(("", "&limit=1", "&wait=1", "&channel=all", "&limit=x", "&nothing"))
    return (
        [
            f"GET /v1/events?channel={channel}&since={since}{more} HTTP/1.1\r\nHost: localhost\r\n"
            f"Accept: {accept}\r\nAuthorization: Bearer {dice.choice(tokens)}\r\n\r\n".encode()
        ],
        _ending(dice),
        0,
    )


def _percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode(errors="surrogatepass"))[:3_000]


def _odd_handshakes(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    good = handshake(
        dice, tokens, subprotocol=dice.choice(("mesh.v1.json", "mesh.v9", ",", "\x01"))
    )
    old, new = dice.choice(
        (
            *((b"GET /v1/ws", b"POST /v1/ws"), (b"/v1/ws", b"http://x"), (b"/v1/ws", b"*")),
            *((b"HTTP/1.1", b"HTTP/1.0"), (b"Version: 13", b"Version: 8"), (b"Key: ", b"Key: x")),
            *((b"Key: ", b"Key: a\r\nSec-WebSocket-Key: "), (b"websocket", b"WEBSOCKET, h2c")),
            *((b"Host", b"Content-Length: 5\r\nHost"), (b"/v1/ws", b"/v1/ws?x=%ff#y")),
            *((b"Host", b"Transfer-Encoding: chunked\r\nHost"), (b"/v1/ws", b"//x:99999/v1/ws")),
            *((b"Bearer ", b"Bearer \xff"), (b"Bearer", b"Basic"), (b"/v1/ws", b"/v1/ws" * 9_000)),
        )
    )
    changed = good.replace(old, new, 1)
    return [flipped(dice, changed) if dice.random() < 0.2 else changed], _ending(dice), 0


def _drips(dice: random.Random, tokens: Sequence[str]) -> _Rest:
    """A byte now and then, of a request that is in order."""
    whole = dice.choice((handshake(dice, tokens, subprotocol="mesh.v1.json"), _head(dice, tokens)))
    return [whole[at : at + 1] for at in range(min(len(whole), 60))], _ending(dice), 0.05


def _other_protocols(dice: random.Random, _tokens: Sequence[str]) -> _Rest:
    hello = dice.choice(
        (
            *(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            ),
            *(
                b"SSH-2.0-x\r\n",
                b"GET /\r\n",
                b"CONNECT {}\r\n",
                b"\x00" * 500,
                dice.randbytes(5_000),
            ),
        )
    )
    return [hello], _ending(dice), 0


def _ending(dice: random.Random) -> Ending:
    return dice.choice((Ending.HALF_CLOSE,) * 6 + (Ending.RESET, Ending.DEAF))


_Make = Callable[[random.Random, Sequence[str]], _Rest]
_KINDS: Final[tuple[_Make, ...]] = (
    *(_wrong_requests, _wrong_requests, _pipelines, _head_bombs, _lies_about_bodies),
    *(_posts_nonsense, _posts_nonsense, _asks_for_feeds, _asks_for_feeds, _odd_handshakes),
    *(_drips, _other_protocols),
)
