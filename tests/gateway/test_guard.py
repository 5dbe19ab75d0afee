"""Pages of other sites, and names that were rebound to this machine, are refused."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send

from jarvis_mesh.gateway.guard import Guard, GuardMiddleware, is_loopback


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def status_of(guard: GuardMiddleware, path: str = "/", **headers: str) -> int:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await guard({"type": "http", "path": path, "headers": raw}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:3200"}, 200),
        ({"host": "127.0.0.1:3200"}, 200),
        ({"host": "[::1]:3200"}, 200),
        ({"host": "app.localhost:3200"}, 200),
        ({"host": "evil.example:3200"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({}, 403),
        ({"host": "localhost:3200", "origin": "http://localhost:3200"}, 200),
        ({"host": "localhost:3200", "origin": "https://good.example"}, 200),
        ({"host": "localhost:3200", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:3200", "origin": "http://localhost:8000"}, 403),
        ({"host": "localhost:3200", "origin": "null"}, 403),
        ({"host": "localhost:3200", "origin": "//localhost:3200"}, 403),
        ({"host": "localhost:3200", "origin": "javascript://localhost:3200"}, 403),
        ({"host": "evil.example@localhost"}, 403),
        ({"host": "localhost/evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
    ],
)
async def test_only_this_machine_and_allowed_origins_pass(
    headers: dict[str, str], status: int
) -> None:
    guard = GuardMiddleware(app, Guard(["https://good.example"], any_host=False))
    assert await status_of(guard, **headers) == status


async def test_beyond_loopback_any_host_passes_but_not_any_origin() -> None:
    guard = GuardMiddleware(app, Guard([], any_host=True))
    assert await status_of(guard, host="mesh.lan:3200") == 200
    assert await status_of(guard, host="mesh.lan:3200", origin="http://evil.example") == 403


async def test_health_is_told_to_everybody() -> None:
    guard = GuardMiddleware(app, Guard([], any_host=False))
    assert await status_of(guard, "/healthz", host="10.0.0.7:3200") == 200


@pytest.mark.parametrize("host", ["", "localhost.evil", "0x7f.1", "[::2]", "a:b:c", "[", "127.1"])
def test_what_is_no_loopback_name(host: str) -> None:
    assert not is_loopback(host)
