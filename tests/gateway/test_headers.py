"""What browsers may do with an answer is said with each; who may read it, only to whom it may."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from jarvis_mesh.gateway.guard import Guard, GuardMiddleware
from jarvis_mesh.gateway.headers import ALWAYS, HeadersMiddleware

GOOD = "https://good.example"


async def _answer(_request: Request) -> Response:
    return JSONResponse({})


async def _page(_request: Request) -> Response:
    return HTMLResponse("", headers={"Content-Security-Policy": "default-src 'self'"})


GUARD = Guard([GOOD], any_address=False)
APP = Starlette(
    routes=[Route("/v1/events", _answer, methods=["GET", "POST"]), Route("/", _page)],
    middleware=[
        Middleware(HeadersMiddleware, guard=GUARD),
        Middleware(GuardMiddleware, guard=GUARD),
    ],
)


async def ask(
    method: str = "GET", path: str = "/v1/events", **headers: str
) -> tuple[int, dict[str, str]]:
    """Return status and headers of the answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    named = {"host": "localhost", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw}
    await APP(scope, receive, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("path", ["/v1/events", "/nowhere"])
async def test_every_answer_says_that_it_is_data(path: str) -> None:
    _, headers = await ask(path=path)
    for name, value in ALWAYS.items():
        assert headers[name.lower()] == value


async def test_a_refusal_says_it_too() -> None:
    status, headers = await ask(host="evil.example")
    assert (status, headers["x-content-type-options"]) == (403, "nosniff")


async def test_a_page_has_a_policy_of_its_own() -> None:
    _, headers = await ask(path="/")
    assert headers["content-security-policy"] == "default-src 'self'"
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("origin", [None, "http://localhost", "https://evil.example", "null"])
async def test_who_isnt_allowed_by_the_setting_is_told_nothing_of_cors(origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    for method in ("GET", "OPTIONS"):
        _, answered = await ask(method, access_control_request_method="POST", **headers)
        assert not [name for name in answered if name.startswith("access-control")]
        assert answered["vary"] == "Origin"


async def test_an_allowed_origin_may_read_what_it_asks_for() -> None:
    status, headers = await ask(origin=GOOD)
    assert (status, headers["access-control-allow-origin"]) == (200, GOOD)
    assert headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in headers


async def test_an_allowed_origin_may_publish_after_it_has_asked() -> None:
    status, headers = await ask("OPTIONS", origin=GOOD, access_control_request_method="POST")
    assert status == 204
    assert headers["access-control-allow-origin"] == GOOD
    assert headers["access-control-allow-methods"] == "GET, POST"
    allowed = headers["access-control-allow-headers"].lower().split(", ")
    assert allowed == ["authorization", "content-type", "last-event-id"]


async def test_options_without_the_question_is_no_preflight() -> None:
    status, _ = await ask("OPTIONS", origin=GOOD)
    assert status == 405
