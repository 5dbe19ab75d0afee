"""What waits for a socket is in order, joined, and tells when it is too much."""

from __future__ import annotations

import asyncio

from jarvis_mesh.gateway.outbox import JOIN_BYTES, UNPROVEN_BYTES, QueuedOutbox


async def test_what_is_queued_together_is_taken_together() -> None:
    outbox = QueuedOutbox(1000, b"\n", None)
    for message in (b"a", b"b", b"c"):
        outbox.write(message)
    assert await outbox.take() == b"a\nb\nc"


async def test_large_messages_go_in_several_takes() -> None:
    outbox = QueuedOutbox(10 * JOIN_BYTES, b"", None)
    outbox.write(b"x" * JOIN_BYTES)
    outbox.write(b"y")
    assert await outbox.take() == b"x" * JOIN_BYTES
    outbox.sent()
    assert await outbox.take() == b"y"


async def test_it_is_full_above_the_high_mark_while_the_socket_takes_nothing() -> None:
    outbox = QueuedOutbox(10, b"", None)
    outbox.write(b"12345678")
    await outbox.take()
    assert not outbox.is_full
    outbox.write(b"901")
    assert outbox.is_full
    outbox.sent()
    assert not outbox.is_full


async def test_a_burst_that_the_socket_had_no_chance_to_take_is_not_its_fault() -> None:
    outbox = QueuedOutbox(10, b"", None)
    outbox.write(b"x" * UNPROVEN_BYTES)
    assert not outbox.is_full
    outbox.write(b"x")
    assert outbox.is_full


async def test_drained_waits_for_the_low_mark() -> None:
    outbox = QueuedOutbox(1000, b"", None)
    await outbox.drained()
    outbox.write(b"x" * 251)
    assert not outbox.is_drained
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outbox.drained())
        await outbox.take()
        assert not waiting.done()
        outbox.sent()
    assert outbox.is_drained


async def test_what_the_socket_has_not_accepted_is_counted() -> None:
    outbox = QueuedOutbox(1000, b"\n", None)
    assert not outbox.has_written
    outbox.write(b"one")
    outbox.write(b"two")
    assert outbox.has_written
    assert outbox.unacknowledged_bytes() == len(b"onetwo")
    await outbox.take()
    outbox.sent()
    assert outbox.unacknowledged_bytes() == 0


async def test_finish_ends_after_what_is_queued() -> None:
    outbox = QueuedOutbox(100, b"", None)
    outbox.write(b"last words")
    outbox.finish(1000, "", discard=False)
    assert await outbox.take() == b"last words"
    assert await outbox.take() == b""


async def test_finish_can_discard_what_is_queued() -> None:
    outbox = QueuedOutbox(100, b"", None)
    outbox.write(b"never sent")
    outbox.finish(1012, "draining", discard=True)
    assert await outbox.take() == b""
