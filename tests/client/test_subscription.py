from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jarvis_mesh.client import ErrorNotice
from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.errors import (
    ChannelError,
    CursorError,
    ForbiddenError,
)
from tests.client.collecting import numbered, soon, take
from tests.client.conftest import HastyClock, Visit
from tests.support.scripted_gateway import EPOCH, cursor
from tests.support.waiting import wait_until


class TestIterating:
    async def test_live_events_come_in_order_and_move_the_cursor(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("event:agent:**")
            request = await visitor.accept(10)
            assert request["channels"] == ["event:agent:**"]
            assert "since" not in request
            await visitor.events((11, numbered(1)), (13, numbered(2)))
            assert await take(subscription, 1) == [1]
            assert subscription.cursor == cursor(11)
            assert await take(subscription, 1) == [2]
            assert subscription.cursor == cursor(13)

    async def test_every_form_of_since_is_sent_as_the_protocol_has_it(self, visit: Visit) -> None:
        forms: list[tuple[Any, Any]] = [
            (timedelta(minutes=10), {"seconds": 600}),
            (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00+00:00"),
            (Cursor(EPOCH, 7), cursor(7)),
            (cursor(8), cursor(8)),
            ("start", "start"),
            ("last", "last"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ]
        async with visit() as (mesh, visitor):
            for since, on_the_wire in forms:
                mesh.subscribe("all", since=since)
                assert (await visitor.expect("subscribe"))["since"] == on_the_wire

    async def test_a_since_that_is_none_is_refused_before_anything_is_sent(
        self, visit: Visit
    ) -> None:
        async with visit() as (mesh, _):
            for since in ("yesterday", datetime(2026, 1, 1)):
                with pytest.raises(CursorError):
                    mesh.subscribe("all", since=since)
            with pytest.raises(ChannelError):
                mesh.subscribe()

    async def test_untagged_events_reach_only_live_subscriptions_that_match(
        self, visit: Visit
    ) -> None:
        async with visit() as (mesh, visitor):
            mine = mesh.subscribe("entity:a")
            await visitor.accept(0, "*.*.*.*.a.*.*")
            others = mesh.subscribe("entity:b")
            await visitor.accept(0, "*.*.*.*.b.*.*")
            replaying = mesh.subscribe("all", since="start")
            name = (await visitor.accept(0))["sub"]
            await visitor.event(1, numbered(1, "a"))
            await visitor.event(2, numbered(2, "b"))
            await visitor.event(1, numbered(1, "a"), name)
            await visitor.say("live", sub=name, cursor=cursor(2), replayed=1)
            await visitor.event(3, numbered(3, "a"))
            assert await take(mine, 2) == [1, 3]
            assert await take(others, 1) == [2]
            assert await take(replaying, 2) == [1, 3]

    async def test_a_heartbeat_moves_the_cursor_of_a_live_subscription_once_all_is_taken(
        self, visit: Visit
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            replaying = mesh.subscribe("all", since="start")
            await visitor.accept(5)
            await visitor.accept(5)
            await visitor.event(6, numbered(1))
            await visitor.say("heartbeat", cursor=cursor(9))
            await wait_until(lambda: subscription.feed.cursor == Cursor(EPOCH, 9))
            assert subscription.cursor == cursor(5)
            assert await take(subscription, 1) == [1]
            assert subscription.cursor == cursor(6)
            await visitor.say("heartbeat", cursor=cursor(12))
            await wait_until(lambda: subscription.cursor == cursor(12), "the cursor")
            assert replaying.cursor == cursor(5)

    async def test_the_newest_events_lie_before_the_cursor_and_come_all_the_same(
        self, visit: Visit
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all", since="last")
            name = (await visitor.accept(20))["sub"]
            for seq in (3, 9, 20):
                await visitor.event(seq, numbered(seq), name)
            await visitor.say("live", sub=name, cursor=cursor(20), replayed=3)
            await visitor.event(21, numbered(21))
            assert await take(subscription, 4) == [3, 9, 20, 21]
            assert subscription.cursor == cursor(21)

    async def test_a_refused_channel_raises_where_it_is_used(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("nonsense")
            request = await visitor.expect("subscribe")
            await visitor.say(
                "error",
                id=request["id"],
                sub=request["sub"],
                code="bad_channel",
                message="'nonsense' is no channel",
                retryable=False,
            )
            with pytest.raises(ChannelError, match="nonsense"):
                await soon(subscription.ready())
            with pytest.raises(ChannelError, match="nonsense"):
                await take(subscription, 1)
            assert subscription.is_closed
            good = mesh.subscribe("all")
            await visitor.accept(0)
            await soon(good.ready())

    async def test_what_came_before_a_right_was_lost_is_taken_first(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            name = (await visitor.accept(0))["sub"]
            await visitor.event(1, numbered(1))
            await visitor.say("error", sub=name, code="forbidden", message="no", retryable=False)
            await wait_until(lambda: subscription.is_closed)
            assert await take(subscription, 1) == [1]
            with pytest.raises(ForbiddenError):
                await take(subscription, 1)

    async def test_a_refusal_for_now_is_asked_again_under_another_name(
        self, visit: Visit, clock: HastyClock
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            names = []
            for _ in range(3):
                request = await visitor.expect("subscribe")
                names.append(request["sub"])
                await visitor.say(
                    "error", id=names[-1], code="unavailable", message="wait", retryable=True
                )
            await visitor.accept(4)
            await soon(subscription.ready())
            assert len(set(names)) == 3
            assert subscription.cursor == cursor(4)
            assert [pause <= 0.3 * 2**n for n, pause in enumerate(clock.pauses)] == [True] * 3

    async def test_closing_tells_the_gateway_and_ends_the_iterator(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            with contextlib.closing(mesh.subscribe("all")) as subscription:
                name = (await visitor.accept(0))["sub"]
                await visitor.event(1, numbered(1))
                await take(subscription, 1)
            assert (await visitor.expect("unsubscribe"))["sub"] == name
            assert [event async for event in subscription] == []
            await visitor.event(2, numbered(2))
            await visitor.say("unsubscribed", sub=name)

    async def test_an_event_that_cannot_be_read_is_said_and_the_feed_goes_on(
        self, visit: Visit
    ) -> None:
        errors: list[ErrorNotice] = []
        async with visit() as (mesh, visitor):
            mesh.on("error", errors.append)
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            broken = numbered(1)
            if visitor.is_text:
                content = broken.to_map() | {"id": 7}
                await visitor.say("event", seq=1, event=content)
            else:
                await visitor.socket.send(bytes.fromhex("8201 43 ffffff"))
            await visitor.event(2, numbered(2))
            assert await take(subscription, 1) == [2]
            assert subscription.unreadable == 1
            assert [(each.subscription, each.seq) for each in errors] == [(subscription, 1)]
