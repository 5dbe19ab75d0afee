"""A service on NATS, for requests: answers as a test says, in the plainest way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import cbor2
import nats
from nats.aio.msg import Msg

from jarvis_mesh.cli.embedded import NatsServer

Answer = Callable[[str, dict[str, Any]], Any]
"""Gets the subject and what the gateway says; returns what to answer, `None` for nothing."""


@asynccontextmanager
async def serving(
    server: NatsServer, user: str, subject: str, answer: Answer
) -> AsyncIterator[None]:
    """Answer requests on *subject* as the NATS user *user*."""
    client = await nats.connect(server.url(user), inbox_prefix=f"_INBOX.{user}")

    async def respond(message: Msg) -> None:
        said = answer(message.subject, cbor2.loads(message.data))
        if said is not None:
            await message.respond(said if isinstance(said, bytes) else cbor2.dumps(said))

    try:
        await client.subscribe(subject, cb=respond)
        await client.flush()
        yield
    finally:
        await client.close()
