"""Wrong input of every kind is answered as the protocol says, and the connection lives."""

from __future__ import annotations

import json
from typing import Any

import cbor2

from tests.support.plain_client import PlainClient

BAD_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"op": "dance"}, "unknown_op"),
    ({"op": 7}, "bad_request"),
    ({}, "bad_request"),
    ({"op": "subscribe"}, "bad_request"),
    ({"op": "subscribe", "sub": "", "channels": ["all"]}, "bad_request"),
    ({"op": "subscribe", "sub": 1, "channels": ["all"]}, "bad_request"),
    ({"op": "subscribe", "sub": "x", "channels": "all"}, "bad_request"),
    ({"op": "subscribe", "sub": "x", "channels": []}, "bad_request"),
    ({"op": "subscribe", "sub": "x", "channels": [None]}, "bad_request"),
    ({"op": "subscribe", "sub": "x", "channels": ["nonsense:x"]}, "bad_channel"),
    ({"op": "subscribe", "sub": "x", "channels": ["event:agent"]}, "bad_channel"),
    ({"op": "subscribe", "sub": "x", "channels": ["all"] * 10_000}, "limit_exceeded"),
    ({"op": "subscribe", "sub": "x", "channels": ["all"], "since": "soon"}, "bad_cursor"),
    ({"op": "subscribe", "sub": "x", "channels": ["all"], "since": 5}, "bad_cursor"),
    ({"op": "subscribe", "sub": "x", "channels": ["all"], "conflate_ms": 0}, "bad_request"),
    ({"op": "unsubscribe", "sub": "never"}, "unknown_subscription"),
    ({"op": "auth", "token": "x"}, "bad_request"),
    ({"op": "request", "service": "terminal", "method": "write"}, "forbidden"),
    ({"op": "ping", "id": 1.5}, "bad_request"),
    ({"op": "ping", "id": "x" * 65}, "bad_request"),
]

GARBAGE: list[str | bytes] = [
    "garbage",
    "[]",
    "null",
    '"ping"',
    "1e999",
    "[" * 60_000,
    "9" * 100_000,
    '{"op":"ping"',
    "\x00",
    b"\xff\xff",
    b"\x81" * 1000,
    cbor2.dumps(["ping"]),
    cbor2.dumps({"op": "ping", 7: 7}),
    cbor2.dumps({"op": b"ping"}),
    "x" * 1024 * 1024,
    b"\xff" * 60_000,
]

TOO_MANY_VALUES: list[str | bytes] = [
    "[" + "[]," * 300_000 + "[]]",
    "[" + "1," * 70_000 + "1]",
    b"\x9a\x00\x01\x11\x70" + b"\x80" * 70_000,
    b"\xff" * 1024 * 1024,
]


async def test_bad_messages_are_answered_and_the_connection_lives(client: PlainClient) -> None:
    for message, code in BAD_MESSAGES:
        await client.socket.send(json.dumps(message))
        answer = await client.next()
        assert (answer["op"], answer.get("code")) == ("error", code), message
        assert answer["message"]
        assert answer["retryable"] is False
        await client.still_lives()


async def test_garbage_is_answered_and_the_connection_lives(client: PlainClient) -> None:
    for data in GARBAGE:
        await client.socket.send(data)
        answer = await client.next()
        assert (answer["op"], answer.get("code")) == ("error", "bad_request"), data[:20]
        await client.still_lives()
    await client.socket.send(b"")
    await client.socket.send("")
    await client.still_lives()


async def test_a_message_of_too_many_values_is_too_large(client: PlainClient) -> None:
    for data in TOO_MANY_VALUES:
        await client.socket.send(data)
        answer = await client.next()
        assert (answer["op"], answer.get("code")) == ("error", "too_large"), data[:20]
        await client.still_lives()


async def test_each_line_is_judged_alone(client: PlainClient) -> None:
    await client.socket.send('{"op":"ping","id":1}\n\nnonsense\n  \n{"op":"ping","id":2}\n')
    assert [(await client.next())["op"] for _ in range(3)] == ["pong", "error", "pong"]


async def test_what_follows_a_malformed_cbor_item_is_skipped(client: PlainClient) -> None:
    ping = cbor2.dumps({"op": "ping", "id": 1})
    await client.socket.send(ping + ping + b"\xff" + ping)
    assert [(await client.next())["op"] for _ in range(3)] == ["pong", "pong", "error"]
    await client.send("ping", id="end")
    assert (await client.next())["id"] == "end"


async def test_a_message_over_the_limit_closes_with_1009(client: PlainClient) -> None:
    await client.socket.send("x" * (1024 * 1024 + 1))
    assert await client.close_code() == 1009


async def test_a_flood_of_bad_lines_is_answered_at_the_readers_pace(client: PlainClient) -> None:
    await client.socket.send("{\n" * 50_000)
    for _ in range(50_000):
        assert (await client.next())["op"] == "error"
    await client.still_lives()
