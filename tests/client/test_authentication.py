"""What becomes of a client whose token isn't taken any more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from jarvis_mesh.client import ConnectionNotice, ErrorNotice, Mesh
from jarvis_mesh.client.formats import FormatName
from jarvis_mesh.schema.errors import ForbiddenError, OutcomeUnknownError, UnauthorizedError
from tests.client.collecting import TOKEN, numbered, soon, take
from tests.client.conftest import HastyClock
from tests.support.scripted_gateway import ScriptedGateway, cursor
from tests.support.waiting import wait_until

PAYLOAD = {"agentId": "a"}
Get = Callable[[], Coroutine[Any, Any, str]]


@pytest.fixture
def asked() -> list[str]:
    """The tokens that were given."""
    return []


@pytest.fixture
def get_token(asked: list[str]) -> Get:
    numbers = itertools.count(1)

    async def get() -> str:
        asked.append(f"token-{next(numbers)}")
        return asked[-1]

    return get


class TestAFixedTokenThatExpires:
    async def test_ends_everything_with_the_reason_and_is_not_tried_again(
        self, gateway: ScriptedGateway, form: FormatName, clock: HastyClock
    ) -> None:
        notices: list[ErrorNotice] = []
        lost: list[ConnectionNotice] = []
        async with Mesh.connect(gateway.url, format=form, clock=clock, token=TOKEN) as mesh:
            mesh.on("error", notices.append)
            mesh.on("connection", lost.append)
            accepted, unanswered = mesh.subscribe("all"), mesh.subscribe("all")
            visitor = await gateway.visitor()
            await visitor.accept(0)
            await visitor.event(1, numbered(1))
            await wait_until(lambda: accepted.feed.cursor and accepted.feed.cursor.seq == 1)
            await visitor.reject("the token has expired")
            with pytest.raises(UnauthorizedError, match="the token has expired"):
                await soon(unanswered.ready())
            assert await take(accepted, 1) == [1]  # what has come isn't lost
            for call in (
                anext(accepted),
                mesh.publish("agent:created", PAYLOAD),
                mesh.request("terminal", "list"),
            ):
                with pytest.raises(UnauthorizedError, match="the token has expired"):
                    await soon(call)
            with pytest.raises(UnauthorizedError, match="the token has expired"):
                mesh.subscribe("all")
            assert not mesh.is_connected
        assert [each.error.message for each in notices] == ["the token has expired"]
        [notice] = lost
        assert (notice.is_connected, notice.is_final) == (False, True)
        assert (gateway.visitors, clock.pauses) == (1, [])

    async def test_ends_everything_where_it_is_found_out_by_reconnecting(
        self, gateway: ScriptedGateway, clock: HastyClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with Mesh.connect(gateway.url, clock=clock, token=TOKEN) as mesh:
            subscription = mesh.subscribe("all")
            visitor = await gateway.visitor()
            await visitor.accept(0)
            gateway.refusal = "the token was revoked"
            visitor.cut()
            with pytest.raises(UnauthorizedError, match="refuses the token: the token was revoked"):
                await soon(anext(subscription))
        assert gateway.refused == 1
        assert "unauthorized: the gateway at" in caplog.text  # since nobody listened

    async def test_ends_everything_where_only_the_other_connection_finds_out(
        self, gateway: ScriptedGateway, form: FormatName, clock: HastyClock
    ) -> None:
        async with Mesh.connect(gateway.url, format=form, clock=clock, token=TOKEN) as mesh:
            subscription = mesh.subscribe("all")
            await (await gateway.visitor()).accept(0)
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(_outcome(mesh.publish("agent:created", PAYLOAD)))
                visitor = await gateway.visitor()
                await visitor.expect("publish")
                await visitor.reject()
            assert isinstance(publishing.result(), OutcomeUnknownError)
            with pytest.raises(UnauthorizedError):
                await soon(anext(subscription))
        assert gateway.visitors == 2

    async def test_tells_an_event_that_was_never_sent_why(
        self, gateway: ScriptedGateway, clock: HastyClock
    ) -> None:
        async with Mesh.connect(gateway.url, clock=clock, token=TOKEN) as mesh:
            await gateway.visitor()
            gateway.refusal = "the token was revoked"
            with pytest.raises(UnauthorizedError, match="revoked"):
                await soon(mesh.publish("agent:created", PAYLOAD))

    async def test_is_the_same_without_a_token(
        self, gateway: ScriptedGateway, clock: HastyClock
    ) -> None:
        """A gateway came back with authentication."""
        async with Mesh.connect(gateway.url, clock=clock) as mesh:
            subscription = mesh.subscribe("all")
            visitor = await gateway.visitor()
            gateway.auth = {"auth": "required"}
            visitor.cut()
            with pytest.raises(UnauthorizedError, match="token= or get_token="):
                await soon(subscription.ready())

    async def test_does_not_cancel_what_its_user_does(self, gateway: ScriptedGateway) -> None:
        told = asyncio.Event()
        async with Mesh.connect(gateway.url, token=TOKEN) as mesh:
            mesh.on("error", lambda _: told.set())
            await (await gateway.visitor()).reject()
            await soon(told.wait())
            mesh.disconnect()


class TestATokenThatCanBeFollowedByAnother:
    async def test_is_followed_at_once_when_it_has_expired(
        self,
        gateway: ScriptedGateway,
        form: FormatName,
        clock: HastyClock,
        get_token: Get,
        asked: list[str],
    ) -> None:
        notices: list[ErrorNotice] = []
        async with Mesh.connect(gateway.url, format=form, clock=clock, get_token=get_token) as mesh:
            mesh.on("error", notices.append)
            subscription = mesh.subscribe("all")
            visitor = await gateway.visitor()
            await visitor.accept(3)
            await visitor.reject()
            visitor = await gateway.visitor()
            assert visitor.authorization == "Bearer token-2"
            request = await visitor.accept(3)
            assert request["since"] == cursor(3)
            await visitor.event(4, numbered(4), request["sub"])
            assert await take(subscription, 1) == [4]
        assert asked == ["token-1", "token-2"]
        assert clock.pauses == [0]
        assert [each.error.message for each in notices] == ["the token has expired"]

    @pytest.mark.parametrize("by_handshake", [True, False])
    async def test_is_followed_more_and_more_slowly_while_none_is_taken(
        self, gateway: ScriptedGateway, clock: HastyClock, get_token: Get, by_handshake: bool
    ) -> None:
        async with Mesh.connect(gateway.url, clock=clock, get_token=get_token) as mesh:
            subscription = mesh.subscribe("all")
            visitor = await gateway.visitor()
            if by_handshake:
                gateway.refusal = "unknown key"
                visitor.cut()
                await wait_until(lambda: gateway.refused >= 6, "six tries")
            else:
                for _attempt in range(6):
                    await visitor.reject()
                    visitor = await gateway.visitor()
            gateway.refusal = None
            if by_handshake:
                visitor = await gateway.visitor()
            await visitor.accept(0)
            await soon(subscription.ready())
        pauses = clock.pauses if by_handshake else clock.pauses[1:]
        assert all(0 < pause <= min(20, 0.3 * 2 ** (n + 1)) for n, pause in enumerate(pauses))

    async def test_that_cannot_be_had_for_now_is_asked_for_again(
        self, gateway: ScriptedGateway, clock: HastyClock
    ) -> None:
        notices: list[ErrorNotice] = []
        tries = 0

        async def get_token() -> str:
            nonlocal tries
            tries += 1
            if 1 < tries < 4:
                raise ConnectionError
            return f"token-{tries}"

        async with Mesh.connect(gateway.url, clock=clock, get_token=get_token) as mesh:
            mesh.on("error", notices.append)
            (await gateway.visitor()).cut()
            assert (await gateway.visitor()).authorization == "Bearer token-4"
        messages = [each.error.message for each in notices]
        assert messages == ["get_token failed: ConnectionError"] * 2

    async def test_that_only_the_other_connection_lacks_is_told_of_too(
        self, gateway: ScriptedGateway, clock: HastyClock, get_token: Get
    ) -> None:
        notices: list[ErrorNotice] = []
        async with (
            Mesh.connect(gateway.url, clock=clock, get_token=get_token) as mesh,
            asyncio.TaskGroup() as tasks,
        ):
            mesh.on("error", notices.append)
            await gateway.visitor()
            gateway.refusal = "unknown key"
            publishing = tasks.create_task(mesh.publish("agent:created", PAYLOAD))
            await wait_until(lambda: notices)
            gateway.refusal = None
            visitor = await gateway.visitor()
            request = await visitor.expect("publish")
            await visitor.say("published", id=request["id"], seq=1)
            assert (await publishing).seq == 1
        assert "unknown key" in notices[0].error.message

    async def test_ends_only_what_the_new_one_does_not_cover(
        self, gateway: ScriptedGateway, form: FormatName, get_token: Get
    ) -> None:
        async with Mesh.connect(gateway.url, format=form, get_token=get_token) as mesh:
            lost, kept = mesh.subscribe("session:s"), mesh.subscribe("all")
            visitor = await gateway.visitor()
            name = (await visitor.accept(0))["sub"]
            await visitor.accept(0)
            await visitor.event(1, numbered(1))
            await visitor.say(
                "error", sub=name, code="forbidden", message="not granted", retryable=False
            )
            await visitor.event(2, numbered(2))
            assert await take(lost, 1) == [1]
            with pytest.raises(ForbiddenError, match="not granted"):
                await soon(anext(lost))
            assert await take(kept, 2) == [1, 2]


async def _outcome(call: Any) -> Any:
    try:
        return await soon(call)
    except UnauthorizedError as error:
        return error
    except OutcomeUnknownError as error:
        return error
