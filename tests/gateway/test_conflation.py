"""A conflated subscription gets the newest event of each subject, in ascending sequence."""

from __future__ import annotations

import asyncio

from jarvis_mesh.gateway.conflation import MAX_SUBJECTS, Conflation
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.schema import parse_channel
from tests.support.clock import ManualClock
from tests.support.stored import stored


async def test_each_interval_sends_the_newest_of_each_subject() -> None:
    sent: list[int] = []
    clock = ManualClock()
    conflation = Conflation(0.1, clock, lambda event: sent.append(event.seq))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(conflation.run())
        for seq, entity in enumerate("abacab", start=1):
            conflation.deliver(stored(seq, entity=entity))
        await clock.advance(0)
        assert sent == []
        await clock.advance(0.1)
        assert sent == [4, 5, 6]
        await clock.advance(0.5)
        assert sent == [4, 5, 6]
        running.cancel()


def test_many_subjects_are_flushed_early() -> None:
    sent: list[int] = []
    conflation = Conflation(60, ManualClock(), lambda event: sent.append(event.seq))
    for seq in range(1, MAX_SUBJECTS + 2):
        conflation.deliver(stored(seq, entity=str(seq)))
    assert sent == list(range(1, MAX_SUBJECTS + 1))


def test_it_is_a_sink_only_between_start_and_stop() -> None:
    interest = Interest(parse_channel("all"))
    conflation = Conflation(1, ManualClock(), lambda _event: None)
    conflation.start([interest], 5)
    assert interest.sinks == {conflation}
    assert conflation.last_seq == 5
    conflation.stop([interest])
    assert interest.sinks == set()
