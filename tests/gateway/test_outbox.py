"""What waits for a socket is bounded, in order, and joined."""

from __future__ import annotations

import asyncio

import pytest

from jarvis_mesh.gateway.outbox import JOIN_BYTES, LOW_WATER_BYTES, Outbox
from jarvis_mesh.schema.errors import LimitError


async def test_what_is_queued_together_is_taken_together() -> None:
    outbox = Outbox(1000, b"\n")
    for message in (b"a", b"b", b"c"):
        outbox.write(message)
    assert await outbox.take() == b"a\nb\nc"


async def test_large_messages_go_in_several_takes() -> None:
    outbox = Outbox(10 * JOIN_BYTES, b"")
    outbox.write(b"x" * JOIN_BYTES)
    outbox.write(b"y")
    assert await outbox.take() == b"x" * JOIN_BYTES
    outbox.sent()
    assert await outbox.take() == b"y"


async def test_the_bound_counts_what_was_taken_and_not_yet_sent() -> None:
    outbox = Outbox(10, b"")
    outbox.write(b"12345678")
    await outbox.take()
    outbox.write(b"9")
    with pytest.raises(LimitError):
        outbox.write(b"10")
    outbox.sent()
    outbox.write(b"10")


async def test_one_message_over_the_bound_passes_when_nothing_else_waits() -> None:
    outbox = Outbox(10, b"")
    outbox.write(b"x" * 100)
    assert await outbox.take() == b"x" * 100


async def test_drained_waits_for_the_low_mark() -> None:
    outbox = Outbox(10 * LOW_WATER_BYTES, b"")
    await outbox.drained()
    outbox.write(b"x" * (LOW_WATER_BYTES + 1))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outbox.drained())
        await outbox.take()
        assert not waiting.done()
        outbox.sent()


async def test_finish_ends_after_what_is_queued() -> None:
    outbox = Outbox(100, b"")
    outbox.write(b"last words")
    outbox.finish()
    assert await outbox.take() == b"last words"
    assert await outbox.take() == b""


async def test_finish_can_discard_what_is_queued() -> None:
    outbox = Outbox(100, b"")
    outbox.write(b"never sent")
    outbox.finish(discard=True)
    assert await outbox.take() == b""
