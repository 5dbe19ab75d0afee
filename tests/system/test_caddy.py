"""Clients behind the reverse proxy of config/Caddyfile, over its TLS."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websockets

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.client import Mesh
from tests.support.caddy import caddy
from tests.support.certificates import Certificates
from tests.support.gateway import gateway
from tests.support.http_client import SSE, ask, next_block, next_event
from tests.support.plain_client import connect
from tests.support.publishing import TestPublisher, make_event
from tests.support.tokens import SECRET, bearer, token_for


async def test_clients_see_events_through_it_and_strangers_nothing(
    nats_server: NatsServer,
    events: TestPublisher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Certificates(tmp_path)
    headers = bearer(token_for("alice"))
    async with (
        gateway(nats_server, jwt_secret=SECRET, trusted_proxies=("127.0.0.1",)) as first,
        gateway(nats_server, jwt_secret=SECRET, trusted_proxies=("127.0.0.1",)) as second,
        caddy(files, tmp_path, *(urlsplit(each.url).netloc for each in (first, second))) as url,
    ):
        await first.ready()
        await second.ready()
        trusting = {"ssl": files.client(), "additional_headers": headers}
        named = headers | {"Host": urlsplit(url).netloc}
        async with (
            connect(url, "mesh.v1.cbor", **trusting) as client,
            ask(url, SSE, channels=("all",), headers=named, tls=files.client()) as stream,
        ):
            await client.subscribe("all")
            while (await next_block(stream)).get("event") != "live":
                pass
            seq = await events.publish(make_event(user="alice"))
            assert (await client.expect("event"))["seq"] == seq
            assert (await next_event(stream))["data"]["seq"] == seq
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with connect(url, ssl=files.client(), additional_headers=bearer("nonsense")):
                pass
        assert refusal.value.response.status_code == 401
        async with connect(url, ssl=files.client()) as stranger:
            assert (await stranger.next())["auth"] == "required"
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        async with Mesh.connect(url, token=token_for("alice")) as mesh:
            await mesh.subscribe("all").ready()
