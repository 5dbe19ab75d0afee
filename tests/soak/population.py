"""Who watches during a soak, and what."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.soak.load import AGENTS, SESSIONS, USERS
from tests.support.followers import Follower, Journal
from tests.support.http_followers import LinesFollower, SseFollower
from tests.support.subscription import Subscription
from tests.support.websocket_follower import WebSocketFollower

WEBSOCKETS = (*["mesh.v1.json"] * 4, *["mesh.v1.cbor"] * 4)
HTTP = (SseFollower, SseFollower, LinesFollower, LinesFollower)
"""Followers over HTTP; empty for gateways that don't serve it."""


def make_followers(
    gateways: Sequence[str], journal: Journal, chance: random.Random
) -> list[Follower]:
    """Return a dozen clients of all kinds, whose subscriptions overlap."""
    followers: list[Follower] = []
    for number, subprotocol in enumerate(WEBSOCKETS):
        subs = {f"sub{index}": _subscription(chance) for index in range(chance.randint(3, 4))}
        name = f"client {number} ({subprotocol})"
        dice = random.Random(chance.random())
        followers.append(
            WebSocketFollower(name, subs, gateways, journal, dice, subprotocol=subprotocol)
        )
    for number, kind in enumerate(HTTP, len(WEBSOCKETS)):
        subs = {"only": _subscription(chance)}
        dice = random.Random(chance.random())
        followers.append(kind(f"client {number} ({kind.kind})", subs, gateways, journal, dice))
    return followers


def _subscription(chance: random.Random) -> Subscription:
    return Subscription(_channels(chance), chance.choice(["start", None]))


def _channels(chance: random.Random) -> list[str]:
    """Return channels from everything to nothing at all."""
    user, session, agent = chance.choice(USERS), chance.choice(SESSIONS), chance.choice(AGENTS)
    return chance.choice(
        [
            ["all"],
            ["event:agent:**"],
            ["event:agent:task:*", f"entity:{agent}"],
            ["event:agent:created"],
            [f"user:{user}"],
            [f"user:{user}", f"session:{session}"],
            [f"session:{session}"],
            [f"entity:{agent}", "event:workflow:step:started"],
            [f"event:terminal:output&user:{user}"],
            [f"user:{user}&session:{session}", f"event:agent:status&entity:{agent}"],
            ["user:nobody"],
        ]
    )
