"""A token is replaced in good time, over the same connection."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.client import ErrorNotice, Mesh
from jarvis_mesh.client.formats import FormatName
from jarvis_mesh.client.renewal import MARGIN, pause_of
from jarvis_mesh.schema.errors import ForbiddenError, UnauthorizedError
from tests.client.collecting import TOKEN
from tests.support.clock import ManualClock
from tests.support.scripted_gateway import ScriptedGateway, Visitor
from tests.support.waiting import wait_until

LIFE = 1000.0
"""Seconds."""


class Asked:
    """A user's `get_token`: counts, and fails when it is told to."""

    def __init__(self) -> None:
        self.times = 0
        self.is_broken = False

    async def __call__(self) -> str:
        self.times += 1
        if self.is_broken:
            raise ConnectionError
        return f"token-{self.times}"


Visit = Callable[..., AbstractAsyncContextManager[tuple[Mesh, Visitor]]]


@pytest.fixture
def hands() -> ManualClock:
    return ManualClock()


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def visit(gateway: ScriptedGateway, form: FormatName, hands: ManualClock, asked: Asked) -> Visit:
    """Connect with a token that lives so long."""

    @asynccontextmanager
    async def connect(life: float = LIFE, **about: Any) -> AsyncIterator[tuple[Mesh, Visitor]]:
        gateway.auth = {"auth": "ok", "user": "alice", "expires": now(hands) + life}
        about = about or {"get_token": asked}
        async with Mesh.connect(gateway.url, format=form, clock=hands, **about) as mesh:
            yield mesh, await gateway.visitor()

    return connect


def now(clock: ManualClock) -> float:
    return clock.time_ms() / 1000


async def authenticate(visitor: Visitor, expires: float) -> str:
    """Take the next token; return it."""
    request = await visitor.expect("auth")
    await visitor.say("authenticated", id=request["id"], user="alice", expires=expires)
    token: str = request["token"]
    return token


async def settled(clock: ManualClock) -> None:
    """Return once the client has heard the answer, and waits for the next time."""
    await wait_until(lambda: clock.sleepers, "a client that waits")


async def test_it_is_replaced_again_and_again_before_it_expires(
    visit: Visit, gateway: ScriptedGateway, hands: ManualClock, asked: Asked
) -> None:
    async with visit() as (mesh, visitor):
        for times in range(1, 4):
            await settled(hands)
            await hands.advance(0.74 * LIFE)
            assert asked.times == times
            await hands.advance(0.17 * LIFE)
            assert await authenticate(visitor, now(hands) + LIFE) == f"token-{times + 1}"
        assert mesh.is_connected
    assert gateway.visitors == 1


async def test_a_fixed_one_is_not_replaced(visit: Visit, hands: ManualClock) -> None:
    async with visit(token=TOKEN) as (mesh, visitor):
        await hands.advance(2 * LIFE)
        mesh.subscribe("all")
        await visitor.accept(0)  # and nothing was said before


async def test_one_that_does_not_expire_is_not_replaced(
    visit: Visit, hands: ManualClock, gateway: ScriptedGateway, asked: Asked
) -> None:
    async with Mesh.connect(gateway.url, clock=hands, get_token=asked) as mesh:
        await hands.advance(100 * LIFE)
        mesh.subscribe("all")
        await (await gateway.visitor()).accept(0)
    assert asked.times == 1


@pytest.mark.parametrize(
    ("code", "kind"), [("forbidden", ForbiddenError), ("unauthorized", UnauthorizedError)]
)
async def test_one_that_is_not_taken_is_told_of_and_followed_by_another(
    visit: Visit, hands: ManualClock, code: str, kind: type[Exception]
) -> None:
    notices: list[ErrorNotice] = []
    async with visit() as (mesh, visitor):
        mesh.on("error", notices.append)
        await hands.advance(0.91 * LIFE)
        request = await visitor.expect("auth")
        await visitor.say(
            "error", id=request["id"], code=code, message="another's", retryable=False
        )
        await wait_until(lambda: notices)
        await settled(hands)
        await hands.advance(1)
        assert await authenticate(visitor, now(hands) + LIFE) == "token-3"
        assert mesh.is_connected
    assert isinstance(notices[0].error, kind)
    assert notices[0].error.message == "the new token isn't taken: another's"


async def test_one_that_cannot_be_had_is_told_of_and_asked_for_until_it_can(
    visit: Visit, hands: ManualClock, asked: Asked
) -> None:
    notices: list[ErrorNotice] = []
    async with visit() as (mesh, visitor):
        mesh.on("error", notices.append)
        asked.is_broken = True
        await hands.advance(0.99 * LIFE)
        assert 2 <= len(notices) == asked.times - 1
        assert notices[0].error.message == "get_token failed: ConnectionError"
        asked.is_broken = False
        await hands.advance(20)
        await authenticate(visitor, now(hands) + LIFE)


@pytest.mark.parametrize("life", [-3600.0, 0.0, 0.5])
async def test_a_clock_that_is_ahead_does_not_make_it_ask_without_end(
    visit: Visit, hands: ManualClock, asked: Asked, life: float
) -> None:
    async with visit(life) as (_, visitor):
        start = now(hands)
        for _ in itertools.takewhile(lambda _: now(hands) < start + 600, itertools.count()):
            times = asked.times
            await hands.advance(1)
            if asked.times > times:
                await authenticate(visitor, now(hands) + life)
                await settled(hands)
        assert 5 < asked.times < 20


@given(st.floats(0.001, 1e9))
def test_it_begins_in_good_time_and_not_too_early(left: float) -> None:
    pause = pause_of(left)
    assert 0.4 * left <= pause <= 0.9 * left
    assert left - pause >= min(MARGIN, left / 2) * 0.999
