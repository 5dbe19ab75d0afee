from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from jarvis_mesh.client import Mesh, Subscription
from jarvis_mesh.schema.errors import (
    SetupError,
    UnavailableError,
)
from tests.client.collecting import numbered, soon
from tests.client.conftest import Visit
from tests.support.scripted_gateway import cursor
from tests.support.waiting import wait_until


class TestConnecting:
    async def test_nobody_listening_is_said_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}"):
            async with Mesh.connect(f"http://127.0.0.1:{port}"):
                pass

    async def test_a_server_that_never_answers_is_given_up_after_the_timeout(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as deaf,
            pytest.raises(UnavailableError, match=r"within 0\.05 s"),
        ):
            async with Mesh.connect(f"ws://127.0.0.1:{deaf.getsockname()[1]}", timeout=0.05):
                pass

    async def test_another_kind_of_server_is_no_gateway(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(UnavailableError, match="404"):
                async with Mesh.connect(f"http://127.0.0.1:{port}"):
                    pass

    @pytest.mark.parametrize("url", ["", "127.0.0.1:3200", "ftp://a", "http://", "http://a:x"])
    def test_what_is_no_url_of_a_gateway_is_refused(self, url: str) -> None:
        with pytest.raises(SetupError, match=r"http://127\.0\.0\.1:3200"):
            Mesh.connect(url)

    async def test_what_the_user_raises_comes_out_as_it_is(self, visit: Visit) -> None:
        with pytest.raises(ZeroDivisionError):
            async with visit():
                raise ZeroDivisionError

    async def test_cancelling_its_user_ends_it(self, visit: Visit) -> None:
        entered = asyncio.Event()

        async def use() -> None:
            async with visit() as (mesh, _):
                entered.set()
                async for _event in mesh.subscribe("all"):
                    pass

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(use())
            await soon(entered.wait())
            task.cancel()
        assert task.cancelled()


class TestDisconnecting:
    async def test_iterators_end_and_it_can_be_said_twice(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.accept(0)
            async with asyncio.TaskGroup() as tasks:
                iterating = tasks.create_task(self._collect(subscription))
                await visitor.event(1, numbered(1))
                await wait_until(lambda: subscription.cursor == cursor(1))
                mesh.disconnect()
                mesh.disconnect()
            assert iterating.result() == [1]
            with pytest.raises(UnavailableError):
                mesh.subscribe("all")
            with pytest.raises(UnavailableError):
                await mesh.publish("agent:created", {"agentId": "a"})

    async def test_who_waits_for_an_answer_hears_of_it(self, visit: Visit) -> None:
        async with visit() as (mesh, visitor):
            subscription = mesh.subscribe("all")
            await visitor.expect("subscribe")
            mesh.disconnect()
            with pytest.raises(UnavailableError):
                await soon(subscription.ready())

    async def test_a_gateway_that_does_not_answer_the_close_is_left_after_a_second(
        self, visit: Visit
    ) -> None:
        async with asyncio.timeout(5):
            async with visit() as (_, visitor):
                visitor.socket.transport.pause_reading()
            visitor.cut()

    async def _collect(self, subscription: Subscription) -> list[Any]:
        return [event.payload["n"] async for event in subscription]
