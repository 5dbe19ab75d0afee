"""Taking events from a subscription, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from jarvis_mesh.client import Subscription
from jarvis_mesh.schema.event import Event
from tests.support.scripted_gateway import make_event

T = TypeVar("T")
TOKEN = ".".join(("eyJhbGciOiJIUzI1NiJ9", "c2VjcmV0", "U0VDUkVU"))
"""Looks like one."""


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(10):
        return await awaitable


async def take(subscription: Subscription, count: int) -> list[Any]:
    """Return what the next *count* events say their number is."""
    return [(await soon(anext(subscription))).payload["n"] for _ in range(count)]


def numbered(n: int, entity: str = "a") -> Event:
    return make_event(entity, n=n)
