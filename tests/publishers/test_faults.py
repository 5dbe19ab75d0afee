"""Many publishes in flight while NATS fails: what each call said is true of the log."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.publishers.base import RETRY_FOR, EventPublisher
from jarvis_mesh.publishers.window import ACK_TIMEOUT, WindowLimits
from jarvis_mesh.schema import SystemClock, new_id
from jarvis_mesh.schema.errors import OutcomeUnknownError, UnavailableError
from tests.support.clock import ManualClock
from tests.support.cluster import Cluster
from tests.support.log_reading import read_log
from tests.support.waiting import wait_until

SOURCE = "agent-service"
WINDOW = WindowLimits(max_events=100)
CALLERS = 200
"""Twice what the window holds: it is always full, and as many wait for room."""
SHORT = 0.5
"""Seconds; every fifth call wants an answer by then, so that some end without one."""
CLOCK = SystemClock()


@dataclass
class Outcomes:
    """What each call said, by the event's id."""

    stored: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)

    async def publish(self, publisher: EventPublisher, timeout: float) -> None:  # noqa: ASYNC109
        """Publish one event and note how that ended."""
        event_id = new_id(CLOCK.time_ms())
        try:
            published = await publisher.publish(
                "agent:updated", {"agentId": "a1"}, id=event_id, timeout=timeout
            )
        except OutcomeUnknownError:
            self.unknown.add(event_id)
        except UnavailableError:
            self.absent.add(event_id)
        else:
            self.stored[event_id] = published.seq

    async def agree_with_log(self, nats: NatsServer | Cluster) -> None:
        """Fail if what was said of any event isn't so, or if the log has what nobody said."""
        log = await read_log(nats, "agent.>")
        seqs = {logged.event.id: logged.seq for logged in log}
        counts = Counter(logged.event.id for logged in log)
        assert [event_id for event_id, count in counts.items() if count > 1] == []
        assert {event_id: seqs.get(event_id) for event_id in self.stored} == self.stored
        assert self.absent.isdisjoint(seqs)
        assert set(seqs) <= set(self.stored) | self.unknown


async def publish_through(
    nats: NatsServer | Cluster, fail: Callable[[Outcomes], Awaitable[None]]
) -> Outcomes:
    """Have 200 callers publish one event after another while *fail* happens."""
    outcomes, stopping = Outcomes(), asyncio.Event()

    async def call_on(publisher: EventPublisher) -> None:
        while not stopping.is_set():
            timeout = SHORT if random.random() < 0.2 else RETRY_FOR
            await outcomes.publish(publisher, timeout)

    async with (
        EventPublisher(SOURCE, nats.url(SOURCE), limits=WINDOW) as publisher,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(CALLERS):
            tasks.create_task(call_on(publisher))
        await fail(outcomes)
        await more(outcomes)
        stopping.set()
    return outcomes


async def more(outcomes: Outcomes) -> None:
    """Return once every caller has had an answer or two."""
    enough = len(outcomes.stored) + 2 * CALLERS
    await wait_until(lambda: len(outcomes.stored) >= enough, "answers", within=30)


async def test_a_server_that_is_killed_and_comes_back(nats_server: NatsServer) -> None:
    async def fail(outcomes: Outcomes) -> None:
        for pause in (0.0, 0.3, 1.0):
            await more(outcomes)
            nats_server.kill()
            await nats_server.wait()
            await CLOCK.sleep(pause)  # as long as it takes whoever restarts it
            await nats_server.start()

    outcomes = await publish_through(nats_server, fail)
    await outcomes.agree_with_log(nats_server)
    assert outcomes.absent


async def test_a_server_that_is_frozen_for_a_while(nats_server: NatsServer) -> None:
    async def fail(outcomes: Outcomes) -> None:
        for seconds in (0.2, ACK_TIMEOUT + 2):  # the second lets tries go unanswered
            await more(outcomes)
            os.kill(nats_server.pid, signal.SIGSTOP)
            await CLOCK.sleep(seconds)
            os.kill(nats_server.pid, signal.SIGCONT)

    outcomes = await publish_through(nats_server, fail)
    await outcomes.agree_with_log(nats_server)
    assert outcomes.unknown


@pytest.mark.timeout(120)
async def test_the_streams_leader_in_a_cluster_is_killed(nats_cluster: Cluster) -> None:
    async def fail(outcomes: Outcomes) -> None:
        await more(outcomes)
        leader = await nats_cluster.stream_leader()
        leader.kill()
        await leader.wait()
        await nats_cluster.stream_leader(other_than=leader)
        await leader.start()
        await nats_cluster.whole()

    outcomes = await publish_through(nats_cluster, fail)
    await nats_cluster.whole()
    await outcomes.agree_with_log(nats_cluster)
    assert outcomes.absent


async def test_what_is_given_up_after_100_s_is_said_to_be_unknown_only_if_it_was_sent(
    nats_server: NatsServer,
) -> None:
    clock, outcomes = ManualClock(), Outcomes()
    options = {"clock": clock, "limits": WINDOW, "close_timeout": 0}
    async with EventPublisher(SOURCE, nats_server.url(SOURCE), **options) as publisher:
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(CALLERS):
                    tasks.create_task(outcomes.publish(publisher, RETRY_FOR))
                await wait_until(lambda: publisher.unacked == CALLERS)
                await clock.advance(99.0)
                assert publisher.unacked == CALLERS
                await clock.advance(1.2)
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
    limit = WINDOW.max_events
    assert (len(outcomes.unknown), len(outcomes.absent)) == (limit, CALLERS - limit)
    await outcomes.agree_with_log(nats_server)
