from __future__ import annotations

import pytest

from jarvis_mesh.schema.cursor import Cursor
from jarvis_mesh.schema.errors import (
    UnknownSubscriptionError,
)
from jarvis_mesh.schema.event import Event
from tests.client.collecting import numbered, soon, take
from tests.client.conftest import Visit
from tests.support.scripted_gateway import EPOCH, cursor, make_event
from tests.support.waiting import wait_until


class TestListeners:
    async def test_events_go_to_listeners_and_the_cursor_follows(self, visit: Visit) -> None:
        every: list[Event] = []
        updates: list[Event] = []
        async with visit() as (mesh, visitor):
            mesh.on("event", every.append)
            undo = mesh.on("event:agent:updated", updates.append)
            subscription = mesh.subscribe(["event:agent:**", "event:system:**"])
            await visitor.accept(0)
            await visitor.event(1, numbered(1))
            await visitor.event(2, make_event(type="agent:created", n=2))
            await wait_until(lambda: len(every) == 2)
            undo()
            undo()
            await visitor.event(3, numbered(3))
            await wait_until(lambda: len(every) == 3)
            assert [event.payload["n"] for event in updates] == [1]
            assert subscription.cursor == cursor(3)
            assert subscription.take_nowait() is None

    async def test_with_listeners_an_iterator_gets_what_comes_once_it_has_begun(
        self, visit: Visit
    ) -> None:
        heard: list[Event] = []
        async with visit() as (mesh, visitor):
            mesh.on("event", heard.append)
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            await visitor.event(1, numbered(1))
            await wait_until(lambda: heard)
            iterator = aiter(subscription)
            await visitor.event(2, numbered(2))
            assert await take(iterator, 1) == [2]
            assert len(heard) == 2

    async def test_events_that_wait_are_told_to_the_first_listener(self, visit: Visit) -> None:
        heard: list[Event] = []
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            await visitor.event(1, numbered(1))
            await wait_until(lambda: subscription.feed.cursor == Cursor(EPOCH, 1))
            mesh.on("event", heard.append)
            assert [event.payload["n"] for event in heard] == [1]

    async def test_a_listener_that_fails_is_logged_and_harms_nobody(
        self, visit: Visit, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[Event] = []
        async with visit() as (mesh, visitor):
            mesh.on("event", lambda _event: 1 / 0)
            mesh.on("event", heard.append)
            mesh.subscribe("all")
            await visitor.accept(0)
            await visitor.event(1, numbered(1))
            await wait_until(lambda: heard)
        assert "a listener for 'event' failed" in caplog.text
        assert "ZeroDivisionError" in caplog.text

    async def test_lagging_and_live_are_told(self, visit: Visit) -> None:
        told: list[object] = []
        async with visit() as (mesh, visitor):
            mesh.on("lagging", told.append)
            mesh.on("live", told.append)
            subscription = mesh.subscribe("entity:a")
            await visitor.accept(0, "*.*.*.*.a.*.*")
            await visitor.say("lagging", behind=500)
            await visitor.event(7, numbered(7, "b"))
            await visitor.event(8, numbered(8, "a"))
            assert await take(subscription, 1) == [8]
            await visitor.event(9, numbered(9, "b"))
            await visitor.say("live", cursor=cursor(500))
            await wait_until(lambda: len(told) == 2)
            assert [type(each).__name__ for each in told] == ["LaggingNotice", "LiveNotice"]
            assert subscription.cursor == cursor(500)

    async def test_a_listener_may_close_and_disconnect(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            mesh.on("event", lambda _event: subscription.close())
            mesh.on("event", lambda _event: mesh.disconnect())
            await visitor.accept(0)
            await visitor.events((1, numbered(1)), (2, numbered(2)))
            await wait_until(lambda: not mesh.is_connected)
            await soon(visitor.socket.wait_closed())

    @pytest.mark.parametrize("name", ["events", "event:", "event:Agent", "event:agent:**"])
    async def test_a_name_that_nothing_has_is_refused(self, visit: Visit, name: str) -> None:
        async with visit() as (mesh, _):
            with pytest.raises(Exception, match="event"):
                mesh.on(name, print)

    async def test_unsubscribing_closes_what_is_for_those_channels_alone(
        self, visit: Visit
    ) -> None:
        async with visit() as (mesh, _):
            one, two = mesh.subscribe("entity:a"), mesh.subscribe("entity:a", "entity:b")
            mesh.unsubscribe(["entity:a"])
            assert (one.is_closed, two.is_closed) == (True, False)
            with pytest.raises(UnknownSubscriptionError):
                mesh.unsubscribe("entity:b")
            mesh.unsubscribe("entity:a", "entity:b")
            assert two.is_closed
