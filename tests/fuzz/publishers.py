"""Hostile publishers and services: what a NATS user with a password can send, and answer."""

from __future__ import annotations

import random
from typing import Any, Final

import cbor2
import zstandard

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import SystemClock, encode_body, new_id
from tests.fuzz.values import KIB, flipped, nonsense, to_cbor
from tests.support.publishing import make_event
from tests.support.raw_nats import HEADERS, RawNats, raw_nats

SOURCE: Final = "agent-service"
SUBJECTS: Final = (
    *("agent.created._.agent-service.a.mallory._", "agent.task.started.agent-service._._._"),
    *("agent.*.*.agent-service.*.*.*", "agent.created._.agent-service.a.%00._", "agent.x"),
)
REPLIES: Final = (
    "",
    "",
    "",
    "live.x",
    "agent.created._.victim._._._",
    "_INBOX.gateway.x.1",
    "live.>",
)
EVERY: Final = 0.05
"""Seconds between two messages."""
LARGEST: Final = 900 * KIB
_BOMB: Final = 64 * 1024 * KIB
_CLOCK = SystemClock()


class HostilePublisher:
    """Writes to the log what no publisher of ours would."""

    def __init__(self, server: NatsServer, dice: random.Random) -> None:
        self.published = 0
        self._server = server
        self._dice = dice
        self._bombs = _bombs()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            async with raw_nats(self._server, SOURCE) as connection:
                for _ in range(200):
                    await self._publish(connection)
                    await _CLOCK.sleep(EVERY)

    async def _publish(self, connection: RawNats) -> None:
        dice = self._dice
        body = self._body()[:LARGEST]
        subject, reply = dice.choice(SUBJECTS), dice.choice(REPLIES)
        headers = f"NATS/1.0\r\nNats-Msg-Id: {new_id(_CLOCK.time_ms())}\r\n\r\n".encode()
        if dice.random() < 0.5:
            headers = dice.choice(HEADERS)
        await connection.hpub(subject, headers, body, reply)
        self.published += 1

    def _body(self) -> bytes:
        dice = self._dice
        event = make_event(source=SOURCE, user="mallory")
        good = encode_body(event)
        payload = {"agentId": "a", "x": nonsense(dice)}
        return dice.choice(
            (
                lambda: good,
                lambda: flipped(dice, good),
                lambda: good + good,
                lambda: dice.choice(self._bombs),
                lambda: b"\x28\xb5\x2f\xfd" + dice.randbytes(100),
                lambda: to_cbor(dice, event.to_map() | {"payload": payload}),
                lambda: to_cbor(dice, nonsense(dice)),
                lambda: cbor2.dumps(
                    event.to_map() | {"payload": {"agentId": "a", "x": [[]] * 9_000}}
                ),
                lambda: dice.randbytes(dice.randrange(200)),
            )
        )()


def _bombs() -> list[bytes]:
    """Return zstd frames that expand to 64 MiB, told and untold, and one with a dictionary."""
    unsized = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return [
        zstandard.compress(bytes(_BOMB)),
        unsized.compress(bytes(_BOMB)) + unsized.flush(),
        zstandard.compress(b"\x9a\x00\x30\x00\x00" + b"\x80" * 0x300000),
        b"\x28\xb5\x2f\xfd\x23\x07\x00\x00\x00\x05" + bytes(40),
    ]


def answer_nonsense(dice: random.Random) -> Any:
    """Return what a service of nonsense answers; `None` for nothing."""
    return dice.choice(
        (
            lambda: None,
            lambda: b"",
            lambda: to_cbor(dice, nonsense(dice)),
            lambda: {"result": None},
            lambda: cbor2.dumps({"result": "x" * 500_000}),
            lambda: to_cbor(dice, {"result": nonsense(dice)}),
            lambda: to_cbor(dice, {"error": nonsense(dice)}),
            lambda: to_cbor(dice, {"error": {"code": str(nonsense(dice, 0)), "message": "x"}}),
            lambda: {"error": {"code": "unauthorized", "message": "\x00" * 1_000}},
        )
    )()
