"""The faults, each a function that breaks something, waits, and mends it.

A fault draws what it needs from the dice that it is given and from nothing else, so that a seed
repeats it.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import nats

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.log import STREAM, LogSettings
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema import SystemClock
from tests.soak.world import World
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

Fault: TypeAlias = Callable[[World, random.Random], Awaitable[None]]

LONG_STOP = 10.0
"""Seconds of a SIGSTOP: longer than a ping of the gateways' NATS connections."""
SHORT_STOP = 1.5
KEPT = 200
"""Sequences before the log's end that retention leaves."""
_CLOCK = SystemClock()


# Clients: quick, several a second


async def cut_client(world: World, chance: random.Random) -> None:
    """RST: what is under way is lost on both sides."""
    chance.choice(world.followers).cut()


async def half_open_client(world: World, chance: random.Random) -> None:
    """The old connection stays, unread, while the client resumes over another."""
    chance.choice(world.followers).abandon()


async def stall_client(world: World, chance: random.Random) -> None:
    """The client takes nothing for some seconds, then reads on."""
    await chance.choice(world.followers).stall(chance.uniform(1, 3 if world.short else 6))


async def move_client(world: World, chance: random.Random) -> None:
    """The client goes from one gateway to the other."""
    await chance.choice(world.followers).move()


async def renew_subscription(world: World, chance: random.Random) -> None:
    """A subscription ends, and another takes its name and replays some of the log."""
    since = "start" if chance.random() < 0.1 else {"seconds": chance.randint(0, 10)}
    await chance.choice(world.followers).renew(since)


# Gateways


async def kill_gateway(world: World, chance: random.Random) -> None:
    """SIGKILL, and a new one on its port."""
    gateway = chance.choice(world.gateways)
    await gateway.kill()
    await _CLOCK.sleep(chance.uniform(0, 1))
    await gateway.start()


async def terminate_gateway(world: World, chance: random.Random) -> None:
    """SIGTERM: it drains, ends, and a new one takes its port."""
    gateway = chance.choice(world.gateways)
    code = await gateway.terminate()
    assert code == 0, f"the gateway ended with {code} when asked to stop"
    await gateway.start()


async def suspend_gateway(world: World, chance: random.Random) -> None:
    """SIGSTOP for some seconds."""
    gateway = chance.choice(world.gateways)
    gateway.suspend()
    try:
        await _CLOCK.sleep(chance.uniform(1, 2 if world.short else 5))
    finally:
        gateway.resume()


# A lone NATS


async def kill_nats(world: World, chance: random.Random) -> None:
    """SIGKILL, and again on the same store."""
    server = _lone(world)
    await _kill(server)
    await _CLOCK.sleep(chance.uniform(0, 2))
    await server.start()


async def suspend_nats(world: World, _chance: random.Random) -> None:
    """SIGSTOP for ten seconds."""
    await _suspend(_lone(world), world)


async def expire_log(world: World, chance: random.Random) -> None:
    """Retention passes the cursors of a client that is away, or stalled."""
    victim = chance.choice(world.followers)
    stop, go_on = chance.choice(
        [(victim.hold, victim.release), (victim.stop_taking, victim.take_again)]
    )
    reached = world.truth.log.last_seq
    stop()
    try:
        await _log_grows(world, reached + 3 * KEPT)
        await _shrink_log(world)
    finally:
        go_on()


async def expire_under_replays(world: World, chance: random.Random) -> None:
    """Retention passes clients in the middle of a replay: several come back at once."""
    victims = chance.sample(world.followers, 4)
    reached = world.truth.log.last_seq
    for victim in victims:
        victim.hold()
    try:
        await _log_grows(world, reached + 3 * KEPT)
    finally:
        for victim in victims:
            victim.release()
    await wait_until(lambda: any(victim.reading for victim in victims), "a client that is back")
    await _shrink_log(world)


async def expire_hole(world: World, chance: random.Random) -> None:
    """A gateway sleeps while NATS is restarted and retention passes: of what its live feed missed,
    the log has the end only.
    """
    server, gateway = _lone(world), chance.choice(world.gateways)
    reached = world.truth.log.last_seq
    gateway.suspend()
    try:
        await _kill(server)
        await server.start()
        await _log_grows(world, reached + 3 * KEPT)
        await _shrink_log(world)
    finally:
        gateway.resume()


async def expire_at_once(world: World, chance: random.Random) -> None:
    """For some seconds the log keeps next to nothing: whoever reads it is overtaken all the time.

    After a pause of the publishers, so that a burst of events is read meanwhile.
    """
    await world.load.pause()
    await _CLOCK.sleep(chance.uniform(0.5, 1.5))
    world.load.resume()
    end = _CLOCK.monotonic() + (1 if world.short else 3)
    while _CLOCK.monotonic() < end:
        for victim in chance.sample(world.followers, 2):
            victim.cut()
        await _shrink_log(world, keep=20)


async def remake_log(world: World, _chance: random.Random) -> None:
    """The stream is deleted and made anew: another epoch.

    Nobody publishes in that moment: who gets an answer for an event that is deleted before we
    have read it can't be told right from wrong.
    """
    server = _lone(world)
    await world.load.pause()
    old = await world.truth.caught_up()
    await _ask_admin(server, f"STREAM.DELETE.{STREAM}", {})
    await set_up_log(server.url("admin"), LogSettings())
    await wait_until(lambda: world.truth.epoch != old.epoch, "the new log")
    world.load.resume(in_new_log=True)


# A cluster


async def kill_leader(world: World, chance: random.Random) -> None:
    """SIGKILL of the stream's leader; it comes back once there is another."""
    nodes = _cluster(world)
    leader = await nodes.stream_leader()
    await _kill(leader)
    await nodes.stream_leader(other_than=leader)
    await _CLOCK.sleep(chance.uniform(0, 1))
    await leader.start()
    await nodes.whole()


async def kill_follower(world: World, chance: random.Random) -> None:
    """SIGKILL of a node that doesn't lead the stream."""
    nodes = _cluster(world)
    leader = await nodes.stream_leader()
    node = chance.choice([each for each in nodes.nodes if each is not leader])
    await _kill(node)
    await _CLOCK.sleep(chance.uniform(0.5, 2))
    await node.start()
    await nodes.whole()


async def suspend_leader(world: World, _chance: random.Random) -> None:
    """SIGSTOP of the stream's leader for ten seconds: another is elected meanwhile."""
    nodes = _cluster(world)
    await _suspend(await nodes.stream_leader(), world)
    await nodes.whole()


CLIENT_FAULTS: dict[str, Fault] = {
    "client cut (RST)": cut_client,
    "client half-open": half_open_client,
    "client stalled": stall_client,
    "client moves to the other gateway": move_client,
    "client subscribes anew": renew_subscription,
}
GATEWAY_FAULTS: dict[str, Fault] = {
    "gateway SIGKILL": kill_gateway,
    "gateway SIGTERM": terminate_gateway,
    "gateway SIGSTOP": suspend_gateway,
}
LONE_FAULTS: dict[str, Fault] = {
    "nats-server SIGKILL": kill_nats,
    "nats-server SIGSTOP": suspend_nats,
    "retention passes a reader": expire_log,
    "retention passes replays": expire_under_replays,
    "retention passes a gateway": expire_hole,
    "retention keeps next to nothing": expire_at_once,
    "log deleted and made anew": remake_log,
}
CLUSTER_FAULTS: dict[str, Fault] = {
    "stream leader SIGKILL": kill_leader,
    "stream leader SIGSTOP": suspend_leader,
    "cluster node SIGKILL": kill_follower,
}
FAULTS = {**CLIENT_FAULTS, **GATEWAY_FAULTS, **LONE_FAULTS, **CLUSTER_FAULTS}
"""Every fault by its kind."""


def _lone(world: World) -> NatsServer:
    assert isinstance(world.nats, NatsServer), "a fault of a lone nats-server"
    return world.nats


def _cluster(world: World) -> Cluster:
    assert isinstance(world.nats, Cluster), "a fault of a cluster"
    return world.nats


async def _kill(server: NatsServer) -> None:
    server.kill()
    await server.wait()


async def _suspend(server: NatsServer, world: World) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await _CLOCK.sleep(SHORT_STOP if world.short else LONG_STOP)
    finally:
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)


async def _log_grows(world: World, to: int) -> None:
    await wait_until(lambda: world.truth.log.last_seq >= to, f"the log's growth to {to}", within=30)


async def _shrink_log(world: World, keep: int = KEPT) -> None:
    """Let the log expire from its front, up to shortly before where we have read it.

    By a purge, which moves the log's first sequence like its limits do; but they count from its
    end, which may be anywhere while hundreds of events come in a burst.
    """
    log = world.truth.log
    await _ask_admin(_lone(world), f"STREAM.PURGE.{STREAM}", {"seq": max(log.last_seq - keep, 1)})


async def _ask_admin(server: NatsServer, what: str, request: dict[str, Any]) -> dict[str, Any]:
    connection = await nats.connect(server.url("admin"))
    try:
        reply = await connection.request(f"$JS.API.{what}", json.dumps(request).encode(), timeout=5)
    finally:
        await connection.close()
    answer: dict[str, Any] = json.loads(reply.data)
    assert "error" not in answer, answer
    return answer
