"""A token goes in the header of each handshake, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from jarvis_mesh.client import Mesh
from jarvis_mesh.client.credentials import Credentials
from jarvis_mesh.client.formats import FormatName
from jarvis_mesh.schema.errors import SetupError, UnauthorizedError
from jarvis_mesh.schema.wire import Auth
from tests.client.collecting import TOKEN, soon
from tests.support.scripted_gateway import ScriptedGateway

URL = "ws://127.0.0.1:3200/v1/ws"


async def token() -> str:
    return TOKEN


@pytest.mark.parametrize("about", [{"token": TOKEN}, {"get_token": token}])
async def test_both_connections_show_it_in_a_header(
    gateway: ScriptedGateway, form: FormatName, about: dict[str, Any]
) -> None:
    gateway.auth = {"auth": "ok", "user": "alice", "expires": 4e9}
    async with (
        Mesh.connect(gateway.url, format=form, **about) as mesh,
        asyncio.TaskGroup() as tasks,
    ):
        watching = await gateway.visitor()
        publishing = tasks.create_task(mesh.publish("agent:created", {"agentId": "a"}))
        calling = await gateway.visitor()
        request = await calling.expect("publish")
        await calling.say("published", id=request["id"], seq=1)
        await publishing
    for visitor in (watching, calling):
        assert (visitor.path, visitor.authorization) == ("/v1/ws", f"Bearer {TOKEN}")


async def test_a_redirect_to_elsewhere_does_not_take_it_along(gateway: ScriptedGateway) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        target = gateway.url.replace("http", "ws") + "/v1/ws"
        writer.write(f"HTTP/1.1 307 Elsewhere\r\nLocation: {target}\r\n".encode())
        writer.write(b"Content-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Mesh.connect(f"http://127.0.0.1:{port}", token=TOKEN):
            visitor = await gateway.visitor()
    assert TOKEN.encode() in heads[0]
    assert visitor.authorization is None


async def test_without_one_there_is_no_header(gateway: ScriptedGateway) -> None:
    async with Mesh.connect(gateway.url):
        assert (await gateway.visitor()).authorization is None


async def test_a_gateway_that_wants_one_is_explained(gateway: ScriptedGateway) -> None:
    gateway.auth = {"auth": "required"}
    with pytest.raises(UnauthorizedError, match="token= or get_token="):
        async with Mesh.connect(gateway.url):
            pass
    with pytest.raises(UnauthorizedError, match="a proxy on the way"):
        async with Mesh.connect(gateway.url, token=TOKEN):
            pass
    gateway.refusal = "a token is needed"
    with pytest.raises(UnauthorizedError, match="token= or get_token="):
        async with Mesh.connect(gateway.url):
            pass


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("the token has expired", "refuses the token: the token has expired"),
        (f"{TOKEN} isn't one", "refuses the token: … isn't one"),
        ("<html>\n</html>", "refuses the token"),
        ("x" * 300, "refuses the token"),
    ],
)
async def test_a_refusal_says_the_gateways_reason_but_never_the_token(
    gateway: ScriptedGateway, said: str, shown: str
) -> None:
    gateway.refusal = said
    with pytest.raises(UnauthorizedError) as raised:
        async with Mesh.connect(gateway.url, token=TOKEN):
            pass
    assert raised.value.message.endswith(shown)


@pytest.mark.parametrize(
    "given", ["", "two words", f"{TOKEN}\n", "a\r\nX-Admin: 1", "ü", "=", "a=b"]
)
def test_what_is_no_token_is_refused_without_being_shown(given: str) -> None:
    with pytest.raises(
        SetupError, match=r"^token: a token is one word of letters, digits and"
    ) as raised:
        Mesh.connect(token=given)
    assert not given or given not in raised.value.message


def test_one_kind_is_enough() -> None:
    with pytest.raises(SetupError, match="both given"):
        Mesh.connect(token=TOKEN, get_token=token)


def test_a_url_has_no_user_beside_a_token() -> None:
    with pytest.raises(SetupError, match="leave that out") as raised:
        Mesh.connect("https://alice:hunter2@mesh.example", token=TOKEN)
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize(
    ("url", "is_said"),
    [
        ("http://mesh.example", True),
        ("ws://192.0.2.1:3200", True),
        ("https://mesh.example", False),
        ("http://localhost:3200", False),
        ("http://a.localhost", False),
        ("http://127.8.8.8", False),
        ("ws://[::1]:3200", False),
    ],
)
def test_a_token_in_the_clear_is_warned_about(
    url: str, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Mesh.connect(url, token=TOKEN)
    assert ("unencrypted" in caplog.text) is is_said
    caplog.clear()
    Mesh.connect(url)
    assert not caplog.text


async def test_a_gateway_without_authentication_is_warned_about_once(
    gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with Mesh.connect(gateway.url, token=TOKEN) as mesh:
        mesh.subscribe("all")
        (await gateway.visitor()).cut()
        await (await gateway.visitor()).accept(0)
    assert caplog.text.count("the token is unused") == 1


async def _fails() -> str:
    raise ValueError(f"no refresh of {TOKEN}")


async def _hangs() -> str:
    await asyncio.Event().wait()
    return TOKEN


async def _is_none() -> Any:
    return None


async def _has_a_line_break() -> str:
    return f"{TOKEN}\n"


def _is_plain() -> Any:
    return TOKEN


@pytest.mark.parametrize(
    ("get_token", "reason"),
    [
        (_fails, "get_token failed: ValueError"),
        (_hangs, "get_token failed: no answer within 0.05 s"),
        (_is_plain, "get_token failed: TypeError"),
        (_is_none, "get_token didn't return a token: "),
        (_has_a_line_break, "get_token didn't return a token: "),
    ],
)
async def test_what_get_token_does_wrong_is_said_without_quoting_it(
    get_token: Any, reason: str
) -> None:
    with pytest.raises(UnauthorizedError) as raised:
        await Credentials(URL, get_token=get_token).token(within=0.05)
    assert raised.value.message.startswith(reason)
    assert TOKEN not in raised.value.message


async def test_get_token_is_called_once_at_a_time() -> None:
    running = most = 0

    async def get_token() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.to_thread(int)
        running -= 1
        return TOKEN

    credentials = Credentials(URL, get_token=get_token)
    await soon(asyncio.gather(*(credentials.token() for _ in range(5))))
    assert most == 1


async def test_no_log_line_and_no_repr_shows_it(
    gateway: ScriptedGateway, form: FormatName, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "websockets")
    gateway.auth = {"auth": "ok", "user": "alice", "expires": 1.0}
    async with Mesh.connect(gateway.url, format=form, get_token=token) as mesh:
        visitor = await gateway.visitor()
        renewal = await visitor.expect("auth")
        assert renewal["token"] == TOKEN
        await visitor.reject()
        await (await gateway.visitor()).reject()
        assert TOKEN not in repr(mesh)
    assert TOKEN not in repr(Credentials(URL, token=TOKEN)) + repr(Auth(token=TOKEN))
    ours = [each for each in caplog.records if each.name != "websockets.server"]
    assert any("unauthorized" in each.getMessage() for each in ours)
    assert not [each for each in ours if TOKEN in each.getMessage()]
