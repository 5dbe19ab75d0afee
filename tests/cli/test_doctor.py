"""`mesh doctor` against good servers, and against servers that let through what they mustn't."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from jarvis_mesh.cli.embedded import NatsServer, find_binary, new_password
from jarvis_mesh.cli.local import write_up_file
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import SOURCES, USERS, render
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES
from tests.conftest import StartNats
from tests.support.gateway import gateway
from tests.support.gateway_process import GatewayProcess
from tests.support.production import production_nats
from tests.support.publishing import publisher
from tests.support.tokens import SECRET
from tests.support.up import mesh_up, run_mesh

GOOD = render(BUILT_IN_FAMILIES)


async def examine(data_dir: Path, *flags: str, **environ: str) -> tuple[int, list[str], str]:
    """Run `mesh doctor`; return exit code, its lines, and what it said on stderr."""
    environ = {"MESH_DATA_DIR": str(data_dir), **environ}
    code, stdout, stderr = await run_mesh("doctor", *flags, **environ)
    return code, stdout.splitlines(), stderr


def failures(lines: list[str]) -> list[str]:
    return [line.removeprefix("FAILED   ") for line in lines if line.startswith("FAILED")]


@asynccontextmanager
async def server_with(conf: str, folder: Path) -> AsyncIterator[NatsServer]:
    """Run a nats-server with *conf*, a log in it, and say so in up.json."""
    (folder / "conf").write_text(conf)
    passwords = {user: new_password() for user in USERS}
    server = NatsServer(find_binary(), folder / "conf", folder / "store", passwords)
    await server.start()
    try:
        await set_up_log(server.url("admin"), LogSettings())
        write_up_file(folder, "http://127.0.0.1:1", {user: server.url(user) for user in USERS})
        yield server
    finally:
        await server.stop()


async def state(server: NatsServer) -> dict[str, Any]:
    """Return what would show that something was left behind."""
    admin = await nats.connect(server.url("admin"))
    try:
        streams = [
            json.loads((await admin.request(f"$JS.API.STREAM.INFO.{name}", b"")).data)
            for name in ("EVENTS", "KV_mesh_revoked")
        ]
    finally:
        await admin.close()
    return {
        each["config"]["name"]: [
            each["created"],
            each["config"],
            *(each["state"][key] for key in ("messages", "last_seq", "consumer_count")),
        ]
        for each in streams
    }


def opened(user: str, verb: str, subject: str) -> str:
    """Return nats.conf with one more permission of a user."""
    head, tail = GOOD[: GOOD.index(f"user: {user},")], GOOD[GOOD.index(f"user: {user},") :]
    return head + tail.replace(f"{verb}: [\n", f'{verb}: [\n          "{subject}"\n', 1)


def closed(user: str, subject: str) -> str:
    """Return nats.conf without one permission of a user."""
    head, tail = GOOD[: GOOD.index(f"user: {user},")], GOOD[GOOD.index(f"user: {user},") :]
    assert f'"{subject}"\n' in tail
    return head + tail.replace(f'          "{subject}"\n', "", 1)


async def test_mesh_up_is_as_it_should_be_and_nothing_is_left_behind(tmp_path: Path) -> None:
    async with mesh_up(tmp_path / "mesh") as up:
        code, lines, stderr = await examine(up.data_dir)
        again, _, _ = await examine(up.data_dir)
        admin = await nats.connect(up.says["nats"]["admin"])
        reply = json.loads((await admin.request("$JS.API.STREAM.INFO.EVENTS", b"")).data)
        assert reply["state"]["messages"] == 0
        await admin.close()
    assert (code, again, failures(lines), stderr) == (0, 0, [], "")
    assert {line[:9] for line in lines} == {"ok       "}
    text = "\n".join(lines)
    for user in SOURCES:
        assert f"{user} may do what it needs, and nothing that it must not" in text
    for claim in (
        "NATS lets nobody in without a password",
        "the log EVENTS is as it should be",
        "the bucket mesh_revoked is as it should be",
        "the gateway answers /readyz",
        "the gateway refuses a page of another site",
        "the gateway refuses a foreign Host",
        "authentication is off, and the gateway listens on this machine alone",
    ):
        assert claim in text


OPENED = [
    ("agent-service", "publish", "live.>", "may not publish live.agent"),
    ("agent-service", "publish", "agent.>", "could speak as terminal-service"),
    ("terminal-service", "publish", "*.*.*.client.*.*.*", "could speak as client"),
    ("system-monitor", "publish", "$JS.API.>", "publish $JS.API.STREAM.DELETE.EVENTS"),
    ("system-monitor", "publish", "$JS.API.STREAM.PURGE.*", "publish $JS.API.STREAM.PURGE.EVENTS"),
    ("workflow-engine", "publish", "$KV.>", "could revoke tokens"),
    ("workflow-engine", "publish", "svc.>", "could call services"),
    ("model-orchestrator", "publish", "mesh.>", "could forge ticks"),
    ("model-orchestrator", "subscribe", "_INBOX.>", "subscribe _INBOX.gateway.>"),
    ("agent-service", "subscribe", "_INBOX.admin.>", "subscribe _INBOX.admin.>"),
    ("agent-service", "subscribe", ">", "may not subscribe >"),
    ("agent-service", "subscribe", "live.>", "could read events"),
    ("gateway", "publish", ">", "publish $JS.API.STREAM.DELETE.EVENTS"),
    ("gateway", "publish", "agent.>", "could speak as agent-service"),
    ("gateway", "subscribe", "svc.>", "could take requests"),
    ("admin", "publish", "live.>", "admin may not publish live.agent"),
]


@pytest.mark.parametrize(("user", "verb", "subject", "named"), OPENED)
async def test_a_permission_that_is_wrongly_open_is_named_and_nothing_left_behind(
    user: str, verb: str, subject: str, named: str, tmp_path: Path
) -> None:
    async with server_with(opened(user, verb, subject), tmp_path) as server:
        async with publisher(server) as events:
            await events.publish_many(5)
        before = await state(server)
        code, lines, _ = await examine(tmp_path)
        assert await state(server) == before
    failed = [line for line in failures(lines) if not line.startswith("the gateway")]
    assert code == 1
    assert any(named in line for line in failed), failed
    assert all(line.startswith(user) for line in failed)


CLOSED: list[tuple[str, str, str]] = [
    ("agent-service", "model.*.*.agent-service.*.*.*", "can't publish"),
    ("agent-service", "svc.agent.*", "can't serve"),
    ("agent-service", "_INBOX.agent-service.>", "can't hear answers"),
    ("gateway", "live.>", "can't follow the log"),
    ("gateway", "$JS.API.DIRECT.GET.KV_mesh_revoked", "can't read what is revoked"),
]


@pytest.mark.parametrize(("user", "subject", "named"), CLOSED)
async def test_a_permission_that_is_missing_is_named(
    user: str, subject: str, named: str, tmp_path: Path
) -> None:
    async with server_with(closed(user, subject), tmp_path):
        code, lines, _ = await examine(tmp_path)
    failed = [line for line in failures(lines) if not line.startswith("the gateway")]
    assert code == 1
    assert [(line.split()[0], named in line) for line in failed] == [(user, True)]


async def test_a_server_without_users_is_named(tmp_path: Path) -> None:
    conf = re.sub(r"authorization: \{.*", "", GOOD, flags=re.DOTALL)
    async with server_with(conf, tmp_path) as server:
        before = await state(server)
        code, lines, _ = await examine(tmp_path)
        assert await state(server) == before
    assert code == 1
    assert any("NATS lets nobody in without a password" in line for line in failures(lines))
    assert sum("could change or delete EVENTS" in line for line in failures(lines)) > 10


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"republish": None}, "republish is null"),
        ({"duplicate_window": 10**9}, "duplicate_window is 1000000000"),
        ({"subjects": ["agent.>", "mesh.tick.>"]}, "subjects is"),
        ({"allow_direct": False}, "allow_direct is false"),
    ],
)
async def test_a_log_that_is_not_as_it_should_be_is_named(
    change: dict[str, Any], named: str, nats_server: NatsServer, tmp_path: Path
) -> None:
    admin = await nats.connect(nats_server.url("admin"))
    info = json.loads((await admin.request("$JS.API.STREAM.INFO.EVENTS", b"")).data)
    config = {key: value for key, value in (info["config"] | change).items() if value is not None}
    reply = await admin.request("$JS.API.STREAM.UPDATE.EVENTS", json.dumps(config).encode())
    assert b"error" not in reply.data
    await admin.close()
    code, lines, _ = await examine(tmp_path, "--nats", nats_server.url("gateway"))
    assert code == 1
    assert any(line.startswith("the log EVENTS") and named in line for line in failures(lines))


async def test_no_log_no_bucket_no_nats_and_a_wrong_password_are_named(
    start_nats: StartNats, tmp_path: Path
) -> None:
    server = await start_nats(None)
    url = server.url("gateway")
    _, lines, _ = await examine(tmp_path, "--nats", url)
    assert sum("stream not found" in line for line in failures(lines)) == 2
    _, lines, _ = await examine(tmp_path, "--nats", url.replace("gateway:", "gateway:x"))
    assert any("NATS refuses the user" in line for line in failures(lines))
    code, lines, _ = await examine(tmp_path, "--nats", "nats://gateway:hush@127.0.0.1:9")
    assert code == 1
    assert any("Connect call failed" in line or "connect call" in line for line in failures(lines))
    assert "hush" not in "\n".join(lines)


async def test_production_is_examined_by_the_environment(tmp_path: Path) -> None:
    async with production_nats(tmp_path / "nats") as production:
        settings = production.settings("gateway") | production.admin_settings()
        served = GatewayProcess(settings, tmp_path / "gateway.log")
        try:
            await served.start()
            environ = {f"MESH_{key}": text for key, text in settings.items()}
            code, lines, stderr = await examine(tmp_path, "--url", served.url, **environ)
            del environ["MESH_NATS_NKEY_SEED_FILE"]
            environ["MESH_NATS_SEEDS"] = str(production.folder / "seeds")
            of_all = await examine(tmp_path, "--url", served.url, **environ)
        finally:
            await served.kill()
    assert (code, failures(lines), stderr) == (0, [], "")
    assert (of_all[0], failures(of_all[1]), of_all[2]) == (0, [], "")
    for user in USERS:
        assert f"{user} may do what it needs" in "\n".join(of_all[1])


async def test_a_gateway_that_other_machines_reach_without_authentication_is_named(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = {
        "NATS_URL": nats_server.url("gateway"),
        "HOST": "0.0.0.0",  # noqa: S104 - that is the point
        "INSECURE": "true",
        "ALLOWED_HOSTS": "*",
    }
    served = GatewayProcess(settings, tmp_path / "gateway.log")
    try:
        await served.start()
        nats_url = nats_server.url("gateway")
        code, lines, _ = await examine(tmp_path, "--nats", nats_url, "--url", served.url)
    finally:
        await served.kill()
    assert code == 1
    assert len(failures(lines)) == 2
    assert any(line.startswith("the gateway refuses a foreign Host") for line in failures(lines))
    assert any("reach it; anybody there reads" in line for line in failures(lines))


async def test_a_gateway_that_wants_tokens_is_as_it_should_be(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with gateway(nats_server, jwt_secret=SECRET) as running:
        await running.ready()
        nats_url = nats_server.url("gateway")
        code, lines, _ = await examine(tmp_path, "--nats", nats_url, "--url", running.url)
    assert (code, failures(lines)) == (0, [])
    assert any("authentication is on" in line for line in lines)


async def test_a_gateway_without_its_log_is_not_ready(
    start_nats: StartNats, tmp_path: Path
) -> None:
    server = await start_nats(None)
    async with gateway(server, nats_admin_url=None) as running:
        _, lines, _ = await examine(tmp_path, "--nats", server.url("gateway"), "--url", running.url)
    assert any(line.startswith("the gateway answers /readyz: 503") for line in failures(lines))


async def test_without_a_mesh_it_says_how_to_start_one(tmp_path: Path) -> None:
    code, lines, stderr = await examine(tmp_path)
    assert (code, lines) == (1, [])
    assert "mesh up" in stderr
