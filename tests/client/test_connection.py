from __future__ import annotations

from datetime import timedelta

import pytest

from jarvis_mesh.client import ConnectionNotice, GapNotice
from jarvis_mesh.schema.cursor import Cursor
from tests.client.collecting import numbered, soon, take
from tests.client.conftest import HastyClock, Visit
from tests.support.scripted_gateway import EPOCH, ScriptedGateway, cursor
from tests.support.waiting import wait_until


class TestReconnecting:
    async def test_every_subscription_goes_on_from_its_cursor(
        self, visit: Visit, gateway: ScriptedGateway
    ) -> None:
        async with visit() as (mesh, visitor):
            live = mesh.subscribe("all", since=timedelta(hours=1))
            name = (await visitor.accept(3))["sub"]
            await visitor.say("live", sub=name, cursor=cursor(4), replayed=0)
            waiting = mesh.subscribe("entity:b", since="start")
            await visitor.accept(0, "*.*.*.*.b.*.*")
            await visitor.event(7, numbered(7))
            assert await take(live, 1) == [7]
            visitor.cut()
            visitor = await gateway.visitor()
            requests = [await visitor.accept(7), await visitor.accept(0, "*.*.*.*.b.*.*")]
            assert [each["since"] for each in requests] == [cursor(7), cursor(0)]
            await visitor.event(7, numbered(7), requests[0]["sub"])
            await visitor.event(8, numbered(8), requests[0]["sub"])
            await visitor.event(9, numbered(9, "b"), requests[1]["sub"])
            assert await take(live, 1) == [8]
            assert await take(waiting, 1) == [9]

    async def test_a_subscription_without_an_answer_is_asked_for_as_the_user_did(
        self, visit: Visit, gateway: ScriptedGateway
    ) -> None:
        async with visit() as (mesh, visitor):
            mesh.subscribe("all", since="start")
            mesh.subscribe("all")
            await visitor.expect("subscribe")
            await visitor.expect("subscribe")
            visitor.cut()
            visitor = await gateway.visitor()
            assert (await visitor.expect("subscribe"))["since"] == "start"
            assert "since" not in await visitor.expect("subscribe")

    async def test_it_asks_from_its_cursor_though_the_gateway_answered_elsewhere_and_was_cut(
        self, visit: Visit, gateway: ScriptedGateway
    ) -> None:
        """The gap that would have explained it must come again."""
        gaps: list[GapNotice] = []
        async with visit() as (mesh, visitor):
            mesh.on("gap", gaps.append)
            subscription = mesh.subscribe("all", since=cursor(5))
            await visitor.accept(100)
            await soon(subscription.ready())
            visitor.cut()
            visitor = await gateway.visitor()
            request = await visitor.accept(5)
            assert request["since"] == cursor(5)
            about = {"sub": request["sub"], "reason": "expired"}
            await visitor.say("gap", **about, **{"from": 6, "to": 100}, cursor=cursor(100))
            await wait_until(lambda: gaps)
            assert (gaps[0].from_seq, gaps[0].to_seq, gaps[0].reason) == (6, 100, "expired")
            assert subscription.cursor == cursor(100)

    @pytest.mark.parametrize(("reason", "epoch"), [("epoch", "18"), ("reset", EPOCH)])
    async def test_a_gap_can_lead_to_smaller_sequences(
        self, visit: Visit, reason: str, epoch: str
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all", since=cursor(500))
            name = (await visitor.accept(500))["sub"]
            after = cursor(0, epoch)
            await visitor.say("gap", sub=name, **{"from": 501}, reason=reason, cursor=after)
            await visitor.event(1, numbered(1), name)
            await visitor.say("live", sub=name, cursor=cursor(1, epoch), replayed=1)
            await visitor.event(2, numbered(2))
            assert await take(subscription, 2) == [1, 2]
            assert subscription.cursor == cursor(2, epoch)

    async def test_a_gap_that_nobody_listens_to_is_logged(
        self, visit: Visit, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            name = (await visitor.accept(3))["sub"]
            await visitor.say(
                "gap", sub=name, **{"from": 4, "to": 4}, reason="unreadable", cursor=cursor(4)
            )
            await wait_until(lambda: subscription.cursor == cursor(4))
        assert "events of all may be missing for ever, from sequence 4 to 4" in caplog.text

    async def test_it_tries_until_the_gateway_is_back_and_waits_longer_each_time(
        self, visit: Visit, gateway: ScriptedGateway, clock: HastyClock
    ) -> None:
        notices: list[ConnectionNotice] = []
        async with visit() as (mesh, _):
            mesh.on("connection", notices.append)
            await gateway.stop()
            await wait_until(lambda: len(clock.pauses) > 6, "seven tries")
            assert not mesh.is_connected
            await gateway.start()
            await gateway.visitor()
            await wait_until(lambda: mesh.is_connected)
        assert [each.is_connected for each in notices] == [False, True, False]
        assert all(0 <= pause <= min(20, 0.3 * 2**n) for n, pause in enumerate(clock.pauses))

    async def test_it_comes_back_when_the_gateway_asked_it_to(
        self, visit: Visit, gateway: ScriptedGateway, clock: HastyClock
    ) -> None:
        notices: list[ConnectionNotice] = []
        async with visit() as (mesh, visitor):
            mesh.on("connection", notices.append)
            await visitor.say("closing", reason="draining", retry_ms=1234)
            await visitor.close(1012, "draining")
            await gateway.visitor()
            assert clock.pauses == [1.234]
            assert notices[0].reason == "closed by the gateway (1012 draining)"

    async def test_silence_for_two_heartbeats_means_that_the_gateway_is_gone(
        self, visit: Visit, gateway: ScriptedGateway
    ) -> None:
        gateway.heartbeat = 0.05
        notices: list[ConnectionNotice] = []
        async with visit() as (mesh, _):
            mesh.on("connection", notices.append)
            gateway.heartbeat = 10
            await gateway.visitor()
        assert notices[0].reason == "nothing came for 0.1 s"

    @pytest.mark.parametrize(
        "garbage", [b"\xff", b"\x01", b"\xa1\x62op\x05", b"\x82\x00\x40", "{", '{"op":5}', "7"]
    )
    async def test_what_is_no_protocol_ends_the_connection_and_nothing_of_it_counts(
        self, visit: Visit, gateway: ScriptedGateway, garbage: str | bytes
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.accept(1)
            good = visitor.encode_event(2, numbered(2))
            if isinstance(garbage, type(good)):
                garbage = good + ("\n" if visitor.is_text else b"") + garbage
            await visitor.socket.send(garbage)
            visitor = await gateway.visitor()
            assert (await visitor.accept(1))["since"] == cursor(1)
            assert subscription.feed.cursor == Cursor(EPOCH, 1)

    async def test_an_operation_that_is_newer_than_the_client_is_passed_over(
        self, visit: Visit
    ) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            await visitor.say("advice", text="drink water")
            await visitor.event(1, numbered(1))
            assert await take(subscription, 1) == [1]
