"""Opening handshakes: the usual one is accepted, and whatever is wrong with another is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from jarvis_mesh.gateway.formats import CBOR, JSON
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.guard import Guard
from jarvis_mesh.gateway.handshake import answer
from jarvis_mesh.gateway.sockets import UpgradeRequest

GOOD = {
    "host": "localhost:3200",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The example of RFC 6455, section 1.3."""


def request(path: str = "/v1/ws", method: str = "GET", **changes: str | None) -> UpgradeRequest:
    """Return a request with the headers of GOOD, but for *changes*."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = [
        (name.encode(), value.encode())
        for name, value in {**GOOD, **named}.items()
        if value is not None
    ]
    return UpgradeRequest(path, method, "HTTP/1.1", headers)


def gateway(*, is_draining: bool = False) -> Gateway:
    guard = Guard([], any_address=False)
    return cast(Gateway, SimpleNamespace(guard=guard, is_draining=is_draining))


def test_the_usual_one_is_accepted_with_the_key_of_the_rfc() -> None:
    response, form = answer(request(), gateway())
    assert form is JSON
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"Protocol:" not in response
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("offered", "form"),
    [("mesh.v1.cbor", CBOR), ("x, mesh.v1.json ,mesh.v1.cbor", JSON), ("", JSON)],
)
def test_the_first_form_that_is_known_is_chosen(offered: str, form: object) -> None:
    response, chosen = answer(request(sec_websocket_protocol=offered), gateway())
    assert chosen is form
    assert (b"Sec-WebSocket-Protocol: mesh.v1." in response) == bool(offered)


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (400, request(sec_websocket_key=None)),
        (400, request(sec_websocket_key="dGhlIHNhbXBsZSBub25j")),
        (400, request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ=!")),
        (400, request(sec_websocket_key="dGhlIHNhbXBsZSBub25*ZQ==")),
        (400, request(sec_websocket_version="12")),
        (400, request(sec_websocket_version=None)),
        (400, request(sec_websocket_protocol="socket.io")),
        (403, request(host="evil.example")),
        (403, request(origin="https://evil.example")),
        (404, request("/socket.io")),
        (405, request(method="POST")),
        (505, request()._replace(protocol="HTTP/1.0")),
    ],
)
def test_what_is_wrong_with_it_is_said(status: int, asked: UpgradeRequest) -> None:
    response, form = answer(asked, gateway())
    assert form is None
    assert response.startswith(b"HTTP/1.1 %d " % status), response
    assert b"\r\nConnection: close\r\n" in response


def test_one_key_too_many_is_refused() -> None:
    doubled = request()
    doubled.headers.append((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="))
    assert answer(doubled, gateway())[0].startswith(b"HTTP/1.1 400 ")


def test_a_gateway_that_drains_sends_everybody_elsewhere() -> None:
    response, form = answer(request(), gateway(is_draining=True))
    assert form is None
    assert response.startswith(b"HTTP/1.1 503 ")
