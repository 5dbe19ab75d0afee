"""What browsers are told about every answer."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from jarvis_mesh.cli.embedded import NatsServer
from tests.support.gateway import RunningGateway, gateway

ALLOWED = "https://app.example"


@pytest.fixture
async def mesh(nats_server: NatsServer) -> AsyncIterator[RunningGateway]:
    async with gateway(nats_server, allowed_origins=(ALLOWED,)) as running:
        await running.ready()
        yield running


async def answer(
    mesh: RunningGateway, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str]]:
    """Return status and headers, with names in lower case."""

    def ask() -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(urlsplit(mesh.url).netloc, timeout=5)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return response.status, {key.lower(): text for key, text in response.getheaders()}
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/metrics", "/v1/events?channel=all", "/v1/events", "/nowhere"]
)
async def test_no_answer_runs_is_framed_or_guessed_at(mesh: RunningGateway, path: str) -> None:
    _, headers = await answer(mesh, path)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
    assert "unsafe-eval" not in policy
    assert "access-control-allow-origin" not in headers


async def test_pages_of_an_allowed_origin_may_read_answers(mesh: RunningGateway) -> None:
    status, headers = await answer(mesh, "/v1/events?channel=all", Origin=ALLOWED)
    assert status == 200
    assert headers["access-control-allow-origin"] == ALLOWED
    assert "Origin" in headers["vary"]
    assert "access-control-allow-credentials" not in headers
    assert "cross-origin-resource-policy" not in headers


async def test_pages_of_an_allowed_origin_may_ask_with_a_token(mesh: RunningGateway) -> None:
    status, headers = await answer(
        mesh,
        "/v1/events",
        "OPTIONS",
        Origin=ALLOWED,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type",
    )
    assert status == 204
    assert headers["access-control-allow-origin"] == ALLOWED
    assert "POST" in headers["access-control-allow-methods"]
    assert "Authorization" in headers["access-control-allow-headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{ALLOWED}.evil.example"])
async def test_pages_of_others_may_not(mesh: RunningGateway, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        status, headers = await answer(
            mesh, "/v1/events", method, Origin=origin, Access_Control_Request_Method="POST"
        )
        assert status == 403
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


async def test_the_gateways_own_page_needs_no_permission(mesh: RunningGateway) -> None:
    status, headers = await answer(mesh, "/v1/events?channel=all", Origin=mesh.url)
    assert status == 200
    assert "access-control-allow-origin" not in headers
