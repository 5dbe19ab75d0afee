"""Opening handshakes: the usual one is accepted, and whatever is wrong with another is said."""

from __future__ import annotations

from typing import Any

import pytest

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.access import ANYBODY
from jarvis_mesh.gateway.formats import CBOR, JSON
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.handshake import MAX_EARLY_BYTES, answer
from jarvis_mesh.gateway.sockets import UpgradeRequest
from tests.support.tokens import SECRET, token_for

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


def gateway(*, is_draining: bool = False, **settings: Any) -> Gateway:
    made = Gateway(Settings(**settings))
    made.is_draining = is_draining
    return made


def test_the_usual_one_is_accepted_with_the_key_of_the_rfc() -> None:
    answered = answer(request(), gateway())
    response = answered.response
    assert answered.form is JSON
    assert answered.grants is ANYBODY
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"Protocol:" not in response
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("offered", "form"),
    [("mesh.v1.cbor", CBOR), ("x, mesh.v1.json ,mesh.v1.cbor", JSON), ("", JSON)],
)
def test_the_first_form_that_is_known_is_chosen(offered: str, form: object) -> None:
    answered = answer(request(sec_websocket_protocol=offered), gateway())
    assert answered.form is form
    assert (b"Sec-WebSocket-Protocol: mesh.v1." in answered.response) == bool(offered)


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
    answered = answer(asked, gateway())
    assert answered.form is None
    assert answered.response.startswith(b"HTTP/1.1 %d " % status), answered
    assert b"\r\nConnection: close\r\n" in answered.response


def test_one_key_too_many_is_refused() -> None:
    doubled = request()
    doubled.headers.append((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="))
    assert answer(doubled, gateway()).response.startswith(b"HTTP/1.1 400 ")


def test_a_gateway_that_drains_sends_everybody_elsewhere() -> None:
    answered = answer(request(), gateway(is_draining=True))
    assert answered.form is None
    assert answered.response.startswith(b"HTTP/1.1 503 ")


def secured() -> Gateway:
    """Return a gateway that has read which tokens are revoked: none."""
    made = gateway(jwt_secret=SECRET)
    made.revocations.are_known = True
    return made


def test_a_token_in_the_header_is_what_the_client_is_granted() -> None:
    authorization = f"bearer {token_for('alice')}"
    grants = answer(request(authorization=authorization), secured()).grants
    assert grants is not None
    assert grants.user == "alice"


def test_without_a_token_the_client_has_to_authenticate_first() -> None:
    answered = answer(request(), secured())
    assert answered.form is JSON
    assert answered.grants is None


@pytest.mark.parametrize("authorization", ["Bearer x.y.z", "Basic YTpi", "Bearer", "Bearer  "])
def test_a_token_that_is_none_is_answered_401(authorization: str) -> None:
    served = secured()
    answered = answer(request(authorization=authorization), served)
    assert answered.form is None
    assert answered.response.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in answered.response
    assert b'mesh_refusals_total{reason="unauthorized"} 1.0' in served.metrics.render()


def test_no_token_counts_before_it_is_known_which_are_revoked() -> None:
    authorization = f"Bearer {token_for('alice')}"
    answered = answer(request(authorization=authorization), gateway(jwt_secret=SECRET))
    assert answered.response.startswith(b"HTTP/1.1 503 ")


def test_who_says_much_before_the_answer_is_told_to_wait() -> None:
    early = request()._replace(early=bytes(MAX_EARLY_BYTES))
    assert answer(early, gateway()).form is JSON
    refused = answer(early._replace(early=bytes(MAX_EARLY_BYTES + 1)), gateway())
    assert refused.form is None
    assert refused.response.startswith(b"HTTP/1.1 400 ")
