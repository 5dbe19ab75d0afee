"""Clients that mean no good, for `benchmarks.hostile`, in a process of their own.

    python -m benchmarks.crowd PORT SEED

A quarter each: garbage, handshakes a byte at a time, subscriptions opened and closed without a
pause, replays of the whole log in a loop. They come from many loopback addresses, and when they
are thrown out they come back at once. It goes on until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from random import Random

from benchmarks.stage import CLOCK, open_many_files
from tests.fuzz.bytes_on_the_wire import Bytes, frame
from tests.support.tokens import token_for

CONNECTIONS = 500
ADDRESSES = 50
KINDS = ("garbage", "slow", "churn", "replay")
_HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Authorization: Bearer %s\r\n\r\n"
)
_CHURN = (
    b'{"op":"subscribe","sub":"%d","channels":["entity:e%d","session:s%d"]}\n'
    b'{"op":"unsubscribe","sub":"%d"}'
)
_REPLAY = b'{"op":"subscribe","sub":"%d","channels":["session:nobody","all"],"since":"start"}'


async def attack(port: int, number: int, random: Random) -> None:
    """Be one of them, for ever."""
    kind, address = KINDS[number % len(KINDS)], f"127.0.1.{1 + number % ADDRESSES}"
    token = token_for(f"evil-{number}", subscribe=["all"], expires_in=3600).encode()
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(address, 0)
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(_read(reader))
                    await _talk(kind, Bytes(random), token, writer)
                    reading.cancel()
            except* OSError:
                pass
            finally:
                writer.transport.abort()
        await CLOCK.sleep(0.01)


async def _read(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass
    raise ConnectionResetError


async def _talk(kind: str, made: Bytes, token: bytes, writer: asyncio.StreamWriter) -> None:
    if kind == "slow":
        for byte in _HANDSHAKE:
            writer.write(bytes([byte]))
            await CLOCK.sleep(0.5)
    writer.write(_HANDSHAKE % token)
    number = 0
    while True:
        number += 1
        if kind == "garbage":
            writer.write(made.frame())
        elif kind == "churn":
            writer.write(frame(1, _CHURN % ((number,) * 4)))
        else:
            writer.write(frame(1, _REPLAY % number))
            writer.write(frame(1, b'{"op":"unsubscribe","sub":"%d"}' % (number - 50)))
        await writer.drain()
        await CLOCK.sleep(0.002)  # as fast as this one process can be for all of them


async def main(port: int, seed: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = [
            tasks.create_task(attack(port, number, Random(seed + number)))  # noqa: S311 - to be repeated
            for number in range(CONNECTIONS)
        ]
        print("here", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for each in crowd:
            each.cancel()


if __name__ == "__main__":
    os.nice(10)  # its CPU is other machines' in life: it shouldn't count here
    open_many_files()
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
