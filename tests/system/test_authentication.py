"""Who is let in, for how long, and what he gets: the whole stack, with tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from joserfc.jwk import ECKey

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.gateway import key_store
from tests.support.gateway import RunningGateway, gateway
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import JSON_TYPE, NDJSON, SSE, ask, get_json, next_block, next_line
from tests.support.mesh_command import announce, environment, mesh
from tests.support.plain_client import PlainClient, connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.responder import serving
from tests.support.tokens import SECRET, bearer, sign, token_for
from tests.support.waiting import wait_until


@pytest.fixture
async def secured(nats_server: NatsServer) -> AsyncIterator[RunningGateway]:
    """A gateway that wants tokens."""
    async with gateway(nats_server, jwt_secret=SECRET) as running:
        await running.ready()
        yield running


@pytest.fixture
async def alice(secured: RunningGateway) -> AsyncIterator[PlainClient]:
    """A client that came with a token, welcomed."""
    async with connect(secured.url, additional_headers=bearer(token_for("alice"))) as connected:
        await connected.expect("welcome")
        yield connected


NONSENSE = "nonsense"


async def refused_status(url: str, **headers: str) -> int:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect(url, additional_headers=headers):
            pass
    return refusal.value.response.status_code


# Over a WebSocket


async def test_a_token_in_the_handshake_is_welcomed(secured: RunningGateway) -> None:
    expires = int(time.time()) + 600
    token = token_for("alice", exp=expires)
    async with connect(secured.url, additional_headers=bearer(token)) as client:
        welcome = await client.next()
    assert (welcome["auth"], welcome["user"], welcome["expires"]) == ("ok", "alice", expires)
    assert ":" in welcome["cursor"]


async def test_a_bad_token_in_the_handshake_is_answered_401(secured: RunningGateway) -> None:
    for token in ("nonsense", token_for("alice", expires_in=-1), sign({"sub": "alice"})):
        assert await refused_status(secured.url, **bearer(token)) == 401


async def test_without_a_token_nothing_is_told_and_nothing_done(
    secured: RunningGateway, events: TestPublisher
) -> None:
    async with connect(secured.url) as client:
        welcome = await client.next()
        assert welcome["auth"] == "required"
        assert not {"cursor", "user", "expires"} & welcome.keys()
        for op, fields in (
            ("subscribe", {"sub": "a", "channels": ["all"]}),
            ("subscribe", {"sub": "a", "channels": ["all"], "since": "start"}),
            ("unsubscribe", {"sub": "a"}),
            ("publish", {"event": {"type": "agent:status", "payload": {}}}),
            ("request", {"service": "terminal", "method": "write"}),
        ):
            assert await client.refusal(op, **fields) == "unauthorized"
        await events.publish(make_event(user="alice"))
        await client.still_lives()
        assert {message["op"] for message in client.received} == {"welcome", "error", "pong"}


async def test_the_first_message_may_bring_the_token(
    secured: RunningGateway, events: TestPublisher
) -> None:
    expires = int(time.time()) + 600
    async with connect(secured.url) as client:
        assert await client.refusal("auth", token=NONSENSE) == "unauthorized"
        answer = await client.ask("auth", id=7, token=token_for("alice", exp=expires))
        assert answer == {"op": "authenticated", "id": 7, "user": "alice", "expires": expires}
        subscribed = await client.subscribe("all", since="start")
        assert subscribed["filters"] == ["*.*.*.*.*.alice.*"]
        await events.publish(make_event(user="bob"))
        seq = await events.publish(make_event(user="alice"))
        assert (await client.expect("event"))["seq"] == seq


async def test_who_brings_no_token_in_time_is_closed(nats_server: NatsServer) -> None:
    async with gateway(nats_server, jwt_secret=SECRET, auth_timeout=0.3) as running:
        await running.ready()
        async with connect(running.url) as client:
            error = await client.expect("error")
            assert error["code"] == "unauthorized"
            assert await client.close_code() == 1008


async def test_a_token_can_be_replaced_before_it_expires(
    secured: RunningGateway, events: TestPublisher
) -> None:
    headers = bearer(token_for("alice", expires_in=0.7))
    async with connect(secured.url, additional_headers=headers) as client:
        await client.subscribe("all")
        answer = await client.ask("auth", token=token_for("alice", expires_in=2))
        assert answer["op"] == "authenticated"
        await wait_until(lambda: time.time() > answer["expires"] - 1, "a later time")
        seq = await events.publish(make_event(user="alice"))
        assert (await client.expect("event"))["seq"] == seq
        assert (await client.expect("error"))["code"] == "unauthorized"
        assert await client.close_code() == 1008
        assert time.time() >= answer["expires"]


async def test_another_users_token_is_refused_and_the_connection_lives(alice: PlainClient) -> None:
    await alice.subscribe("all")
    assert await alice.refusal("auth", token=token_for("bob")) == "forbidden"
    assert await alice.refusal("auth", token=NONSENSE) == "unauthorized"
    await alice.still_lives()


async def test_what_a_new_token_doesnt_grant_ends_at_once(
    secured: RunningGateway, events: TestPublisher
) -> None:
    both = token_for("alice", subscribe=["user:alice", "shared"])
    async with connect(secured.url, additional_headers=bearer(both)) as client:
        await client.subscribe("user:alice", sub="own")
        await client.subscribe("shared", sub="shared")
        await client.subscribe("all", sub="all")
        assert (await client.ask("auth", token=token_for("alice")))["op"] == "authenticated"
        ended = {(await client.expect("error", code="forbidden"))["sub"] for _ in range(2)}
        assert ended == {"shared", "all"}
        await events.publish(make_event())
        seq = await events.publish(make_event(user="alice"))
        assert (await client.expect("event"))["seq"] == seq
        assert client.seqs() == [seq]
        assert await client.refusal("unsubscribe", sub="all") == "unknown_subscription"


async def test_a_replay_that_a_new_token_doesnt_grant_ends_at_once(
    secured: RunningGateway, events: TestPublisher
) -> None:
    await events.publish_many(300, user="bob")
    token = token_for("alice", subscribe=["all"])
    async with connect(secured.url, additional_headers=bearer(token)) as client:
        await client.subscribe("user:bob", since="start", conflate_ms=50)
        await client.ask("auth", token=token_for("alice"))
        await client.expect("error", code="forbidden", sub="a")
        seen = len(client.seqs("a"))
        await events.publish(make_event(user="bob"))
        await client.still_lives()
        assert len(client.seqs("a")) == seen


async def test_a_subscription_never_widens(secured: RunningGateway, events: TestPublisher) -> None:
    headers = bearer(token_for("alice"))
    async with connect(secured.url, additional_headers=headers) as client:
        await client.subscribe("all")
        await client.ask("auth", token=token_for("alice", subscribe=["all"]))
        await events.publish(make_event(user="bob"))
        seq = await events.publish(make_event(user="alice"))
        assert (await client.expect("event"))["seq"] == seq
        assert client.seqs() == [seq]


# Publishing


@pytest.mark.parametrize("subprotocol", ["mesh.v1.json", "mesh.v1.cbor"])
async def test_an_event_is_published_within_the_grants_as_the_tokens_user(
    secured: RunningGateway, subprotocol: str
) -> None:
    token = token_for("alice", publish=["event:agent:**"])
    headers = bearer(token)
    async with connect(secured.url, subprotocol, additional_headers=headers) as client:
        await client.subscribe("all")
        said = {"type": "agent:status", "payload": {"agentId": "a", "status": "x"}}
        answer = await client.ask("publish", event=said | {"metadata": {"user": "bob"}})
        assert answer["op"] == "published", answer
        await client.still_lives()
        (event,) = [each["event"] for each in client.received if each["op"] == "event"]
        assert (event["metadata"]["user"], event["source"]) == ("alice", "client")
        said = {"type": "model:error", "payload": {"model": "m", "error": "x"}}
        assert await client.refusal("publish", event=said) == "forbidden"


async def test_without_a_grant_nothing_is_published(alice: PlainClient) -> None:
    said = {"type": "agent:status", "payload": {"agentId": "a", "status": "x"}}
    assert await alice.refusal("publish", event=said) == "forbidden"


# Services


async def test_a_service_is_called_for_the_tokens_user(
    secured: RunningGateway, nats_server: NatsServer
) -> None:
    def answer(subject: str, said: dict[str, Any]) -> Any:
        return {"result": {"subject": subject, "said": said}}

    token = token_for("alice", request=["terminal.*"])
    for subprotocol in ("mesh.v1.json", "mesh.v1.cbor"):
        async with (
            serving(nats_server, "terminal-service", "svc.terminal.*", answer),
            connect(secured.url, subprotocol, additional_headers=bearer(token)) as client,
        ):
            data = {"terminalId": "t1", "input": "ls\n"}
            response = await client.ask(
                "request", id=5, service="terminal", method="write", data=data
            )
            said = {"data": data, "user": "alice"}
            result = {"subject": "svc.terminal.write", "said": said}
            assert response == {"op": "response", "id": 5, "data": result}


async def test_what_a_service_refuses_is_told(
    secured: RunningGateway, nats_server: NatsServer
) -> None:
    answers = {
        "svc.terminal.a": {"error": {"code": "forbidden", "message": "not yours"}},
        "svc.terminal.b": b"nonsense",
        "svc.terminal.c": {"result": b"bytes"},
        "svc.terminal.d": None,
        "svc.terminal.e": {"result": None},
    }
    token = token_for("alice", request=["terminal.*", "nobody.*"])
    async with (
        serving(nats_server, "terminal-service", "svc.terminal.*", lambda name, _: answers[name]),
        connect(secured.url, additional_headers=bearer(token)) as client,
    ):
        refusals = {
            method: await client.refusal(
                "request", service="terminal", method=method, timeout_ms=300
            )
            for method in "abcd"
        }
        assert refusals == {"a": "forbidden", "b": "internal", "c": "internal", "d": "timeout"}
        nothing = await client.ask("request", service="terminal", method="e")
        assert nothing["data"] is None
        assert await client.refusal("request", service="nobody", method="x") == "unavailable"
        assert await client.refusal("request", service="agent", method="x") == "forbidden"
        for service in ("a.b", "", "*", ">", "x" * 129, "é"):
            code = await client.refusal("request", service=service, method="x")
            assert code == "bad_request", service


async def test_a_slow_service_holds_nothing_up(
    secured: RunningGateway, nats_server: NatsServer
) -> None:
    token = token_for("alice", request=["terminal.*"])
    async with (
        serving(nats_server, "terminal-service", "svc.terminal.*", lambda *_: None),
        connect(secured.url, additional_headers=bearer(token)) as client,
    ):
        await client.send("request", id="slow", service="terminal", method="x", timeout_ms=60_000)
        await client.still_lives()


# Over HTTP


@pytest.mark.parametrize("accept", [SSE, NDJSON, JSON_TYPE])
async def test_over_http_a_token_is_needed(secured: RunningGateway, accept: str) -> None:
    for headers in ({}, bearer("nonsense"), {"Authorization": "Basic YTpi"}):
        async with ask(secured.url, accept, channels=("all",), headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert json.loads(await answer.text())["code"] == "unauthorized"


async def test_over_http_only_what_is_granted_comes(
    secured: RunningGateway, events: TestPublisher
) -> None:
    own = [await events.publish(make_event(user=user)) for user in ("alice", "bob", "alice")][::2]
    headers = bearer(token_for("alice"))
    options = {"channels": ("all",), "since": "start", "headers": headers}
    status, page = await get_json(secured.url, **options)
    assert (status, [each["seq"] for each in page["events"]]) == (200, own)
    async with ask(secured.url, NDJSON, **options) as stream:
        assert (await next_line(stream))["filters"] == ["*.*.*.*.*.alice.*"]
        assert [(await next_line(stream))["seq"] for _ in own] == own
    status, refused = await get_json(secured.url, channels=("user:bob",), headers=headers)
    assert (status, refused["code"]) == (403, "forbidden")


async def test_over_http_publishing_needs_a_grant(secured: RunningGateway) -> None:
    body = json.dumps({"type": "agent:status", "payload": {"agentId": "a", "status": "x"}}).encode()
    for headers, wanted in (
        ({}, 401),
        (bearer(token_for("alice")), 403),
        (bearer(token_for("alice", publish=["user:alice"])), 200),
    ):
        status, _ = await get_json(secured.url, method="POST", body=body, headers=headers)
        assert status == wanted


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_stream_ends_with_its_token(secured: RunningGateway, accept: str) -> None:
    headers = bearer(token_for("alice", expires_in=1))
    async with ask(secured.url, accept, channels=("all",), headers=headers) as stream:
        assert stream.status == 200
        assert "unauthorized" in await stream.text()


async def test_a_long_poll_ends_with_its_token(secured: RunningGateway) -> None:
    headers = bearer(token_for("alice", expires_in=1))
    async with asyncio.timeout(10):
        status, page = await get_json(secured.url, channels=("all",), wait=30, headers=headers)
    assert (status, page["events"]) == (200, [])


async def test_a_token_in_the_url_counts_for_event_streams_if_switched_on(
    nats_server: NatsServer, secured: RunningGateway
) -> None:
    token = token_for("alice")
    async with ask(secured.url, SSE, channels=("all",), access_token=token) as stream:
        assert stream.status == 401
    async with gateway(nats_server, jwt_secret=SECRET, query_tokens=True) as open_to_it:
        await open_to_it.ready()
        url = open_to_it.url
        async with ask(url, SSE, channels=("all",), access_token=token) as stream:
            assert stream.status == 200
            assert "id" in await next_block(stream)
        status, _ = await get_json(url, channels=("all",), access_token=token)
        assert status == 401
        headers = bearer(token)
        status, _ = await get_json(url, channels=("all",), access_token=token, headers=headers)
        assert status == 400


async def test_metrics_are_for_operators(secured: RunningGateway) -> None:
    assert (await secured.get("/metrics"))[0] == 401
    assert (await secured.get("/metrics", **bearer(token_for("alice"))))[0] == 403
    status, text = await secured.get("/metrics", **bearer(token_for("ops", subscribe=["all"])))
    assert status == 200
    assert 'mesh_refusals_total{reason="unauthorized"} 1.0' in text
    assert (await secured.get("/healthz"))[0] == 200


# Keys


async def test_a_rotated_key_is_found(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "FETCH_PAUSE", 0.2)
    old, new = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))
    path = tmp_path / "jwks.json"

    def token(key: ECKey) -> str:
        return sign({"sub": "alice", "exp": time.time() + 600}, key, "ES256")

    def show(*keys: ECKey) -> None:
        path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}))

    show(old)
    async with gateway(nats_server, jwks_url=path.as_uri()) as running:
        await running.ready()
        async with connect(running.url, additional_headers=bearer(token(old))) as client:
            assert (await client.next())["auth"] == "ok"
        show(old, new)

        async def is_let_in() -> bool:
            async with connect(running.url) as client:
                await client.expect("welcome")
                return (await client.ask("auth", token=token(new)))["op"] == "authenticated"

        async with asyncio.timeout(20):
            while not await is_let_in():
                await wait_until(lambda: True)
        async with connect(running.url, additional_headers=bearer(token(new))) as client:
            assert (await client.next())["auth"] == "ok"


async def test_without_keys_nobody_is_let_in_and_is_told_to_try_again(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    key = ECKey.generate_key("P-256", {"kid": "k"})
    token = sign({"sub": "alice", "exp": time.time() + 600}, key, "ES256")
    async with gateway(nats_server, jwks_url=(tmp_path / "none.json").as_uri()) as running:
        await running.ready()
        assert await refused_status(running.url, **bearer(token)) == 503
        status, refusal = await get_json(running.url, channels=("all",), headers=bearer(token))
        assert (status, refusal["code"]) == (503, "unavailable")


# Revocation


@pytest.mark.parametrize("by", ["user", "id"])
async def test_a_revoked_token_is_of_no_use_any_more(
    by: str, secured: RunningGateway, nats_server: NatsServer, tmp_path: Path
) -> None:
    announce(nats_server, tmp_path)
    now = time.time()
    token = token_for("alice", jti="t1", iat=now)
    other = token_for("bob" if by == "user" else "alice", jti="t2", iat=now)
    async with (
        connect(secured.url, additional_headers=bearer(token)) as client,
        connect(secured.url, additional_headers=bearer(other)) as spared,
        ask(secured.url, SSE, channels=("all",), headers=bearer(token)) as stream,
    ):
        ended = await mesh(
            "revoke", f"--{by}", "alice" if by == "user" else "t1", env=environment(tmp_path)
        )
        assert ended.code == 0, ended.stderr
        error = await client.expect("error")
        assert (error["code"], error["message"]) == ("unauthorized", "the token was revoked")
        assert await client.close_code() == 1008
        assert "unauthorized" in await stream.text()
        await spared.still_lives()
    assert await refused_status(secured.url, **bearer(token)) == 401
    later = token_for("alice", iat=time.time() + 1)
    async with connect(secured.url, additional_headers=bearer(later)) as client:
        assert (await client.next())["auth"] == "ok"


async def test_a_gateway_that_starts_knows_what_was_revoked_before(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    announce(nats_server, tmp_path)
    token = token_for("alice", jti="t1")
    env = environment(tmp_path)
    for revoked in ("t0", "t1"):
        assert (await mesh("revoke", "--id", revoked, env=env)).code == 0
    async with gateway(nats_server, jwt_secret=SECRET) as running:
        await running.ready()
        assert await refused_status(running.url, **bearer(token)) == 401


async def test_no_token_is_ever_logged(nats_server: NatsServer, tmp_path: Path) -> None:
    settings = {
        "NATS_URL": nats_server.url("gateway"),
        "NATS_ADMIN_URL": nats_server.url("admin"),
        "JWT_SECRET": SECRET,
        "QUERY_TOKENS": "true",
    }
    log = tmp_path / "gateway.log"
    running = GatewayProcess(settings, log)
    await running.start()
    token = token_for("alice", expires_in=0.4)
    bad = token[:-4] + "AAAA"
    for each in (token, bad):
        try:
            async with connect(running.url, additional_headers=bearer(each)) as client:
                await client.close_code()
        except websockets.InvalidStatus:
            pass
        async with ask(running.url, SSE, channels=("all",), access_token=each) as stream:
            await stream.text()
        async with connect(running.url) as client:
            await client.ask("auth", token=each)
    await running.terminate()
    written = log.read_text()
    assert "draining" in written
    assert not [part for part in (*token.split("."), SECRET) if part in written]
