"""Interests are found by subject at a cost that depends on shapes, not on filters."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.interest import Interests
from jarvis_mesh.schema import Filter
from jarvis_mesh.schema.errors import UnavailableError

TOKENS = st.sampled_from(["a", "b", "c"])
FILTERS = st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=7, max_size=7).map(
    lambda tokens: Filter(tuple(tokens))
)
A = Filter(("a", *"*" * 6))
B = Filter(("b", *"*" * 6))


class FakeNats:
    """Notes what is subscribed; can be made to fail."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.takes = 1_000

    async def listen(self, subject: str, handler: object) -> Any:
        if len(self.subjects) >= self.takes:
            raise UnavailableError("away")
        self.subjects.append(subject)
        return SimpleNamespace(subject=subject)

    async def unlisten(self, subscription: Any) -> None:
        self.subjects.remove(subscription.subject)


def new() -> tuple[FakeNats, Interests]:
    nats = FakeNats()
    return nats, Interests(nats, lambda *_message: None)


@given(st.sets(FILTERS, max_size=30), st.lists(TOKENS, min_size=7, max_size=7))
def test_matching_finds_what_comparing_with_every_filter_finds(
    filters: set[Filter], subject: list[str]
) -> None:
    _, interests = new()
    asyncio.run(interests.acquire(filters))
    found = {interest.filter for interest in interests.matching(tuple(subject))}
    assert found == {wanted for wanted in filters if wanted.matches(subject)}


async def test_a_filter_is_subscribed_once_and_until_nobody_uses_it() -> None:
    nats, interests = new()
    first = await interests.acquire([A, B])
    second = await interests.acquire([A])
    assert second[0] is first[0]
    assert nats.subjects == [f"live.{A}", f"live.{B}"]
    await interests.release(first)
    assert nats.subjects == [f"live.{A}"]
    await interests.release(second)
    assert nats.subjects == []
    assert len(interests) == 0
    assert list(interests.matching("abcdefg")) == []


async def test_what_cannot_be_subscribed_whole_leaves_nothing_behind() -> None:
    nats, interests = new()
    nats.takes = 1
    with pytest.raises(UnavailableError):
        await interests.acquire([A, B])
    assert nats.subjects == []
    assert len(interests) == 0


async def test_who_shares_an_interest_waits_until_it_is_subscribed() -> None:
    nats, interests = new()
    asked, sent = asyncio.Event(), asyncio.Event()
    listen = nats.listen

    async def slowly(subject: str, handler: object) -> Any:
        asked.set()
        await sent.wait()
        return await listen(subject, handler)

    nats.listen = slowly  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(interests.acquire([A]))
        second = tasks.create_task(interests.acquire([A, B]))
        await asked.wait()
        assert not interests.incomplete
        assert not second.done()
        sent.set()
    assert first.result()[0] is second.result()[0]
    assert interests.incomplete == set(second.result())


async def test_what_was_looked_up_is_looked_up_again_when_interests_have_changed() -> None:
    _, interests = new()
    subject = ("a", *"bcdefg")
    assert interests.matching(subject) == ()
    acquired = await interests.acquire([A])
    assert interests.matching(subject) == tuple(acquired)
    await interests.release(acquired)
    assert interests.matching(subject) == ()
