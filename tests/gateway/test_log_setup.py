"""The stream is made once, whoever starts first, and follows the settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from jarvis_mesh.cli.embedded import NatsServer, find_binary
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.schema.errors import SetupError, UnavailableError
from tests.conftest import StartNats


async def stream_info(server: NatsServer, name: str = "EVENTS") -> dict[str, Any]:
    admin = await nats.connect(server.url("admin"))
    try:
        reply = await admin.request(f"$JS.API.STREAM.INFO.{name}", b"")
    finally:
        await admin.close()
    info: dict[str, Any] = json.loads(reply.data)
    return info


async def test_several_that_start_together_make_one_stream(start_nats: StartNats) -> None:
    server = await start_nats(None)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(set_up_log(server.url("admin"), LogSettings()))
    assert (await stream_info(server))["config"]["subjects"][0] == "agent.>"


async def test_the_bucket_is_made_with_the_log_and_updated_without_losing_anything(
    start_nats: StartNats,
) -> None:
    server = await start_nats(LogSettings())
    before = await stream_info(server, "KV_mesh_revoked")
    admin = await nats.connect(server.url("admin"))
    await admin.request(
        "$JS.API.STREAM.UPDATE.KV_mesh_revoked",
        json.dumps({**before["config"], "max_bytes": 1024**2}).encode(),
    )
    await admin.close()
    await set_up_log(server.url("admin"), LogSettings())
    after = await stream_info(server, "KV_mesh_revoked")
    assert after["config"]["max_bytes"] == before["config"]["max_bytes"] == 16 * 1024**2
    assert after["created"] == before["created"]


async def test_an_update_keeps_the_log_and_its_epoch(start_nats: StartNats) -> None:
    server = await start_nats(LogSettings())
    before = await stream_info(server)
    await set_up_log(server.url("admin"), LogSettings(families=("agent", "deploy")))
    after = await stream_info(server)
    assert after["created"] == before["created"]
    assert "deploy.>" in after["config"]["subjects"]


async def test_what_the_server_refuses_is_said(start_nats: StartNats) -> None:
    server = await start_nats(None)
    with pytest.raises(SetupError, match="can't be made"):
        await set_up_log(server.url("admin"), LogSettings(families=("live",)))


async def test_a_refused_user_is_said_without_the_password(start_nats: StartNats) -> None:
    server = await start_nats(None)
    url = f"nats://admin:hush@127.0.0.1:{server.port}"
    with pytest.raises(UnavailableError, match="MESH_NATS_ADMIN_URL") as refusal:
        await set_up_log(url, LogSettings())
    assert "hush" not in refusal.value.message


async def test_of_several_urls_one_that_answers_is_enough(start_nats: StartNats) -> None:
    server = await start_nats(None)
    dead = "nats://admin:x@127.0.0.1:9"
    await set_up_log(f"{dead},{server.url('admin')}", LogSettings())
    assert (await stream_info(server))["config"]["name"] == "EVENTS"


async def test_a_cluster_without_a_leader_is_waited_for(tmp_path: Path) -> None:
    """It takes 15 s to bring a real one there: here somebody else says what it says."""
    conf = tmp_path / "nats.conf"
    conf.write_text("# no JetStream, no users")
    server = NatsServer(find_binary(), conf, tmp_path / "store", dict.fromkeys(USERS, "x"))
    await server.start()
    try:
        leaderless = await nats.connect(server.url("admin"))
        error = {"code": 503, "err_code": 10008, "description": "temporarily unavailable"}

        async def answer(request: Msg) -> None:
            await request.respond(json.dumps({"error": error}).encode())

        await leaderless.subscribe("$JS.API.STREAM.>", cb=answer)
        await leaderless.flush()
        with pytest.raises(UnavailableError, match="temporarily unavailable"):
            await set_up_log(server.url("admin"), LogSettings())
        await leaderless.close()
    finally:
        await server.stop()


async def test_nats_away_is_said() -> None:
    with pytest.raises(UnavailableError, match="Connect call failed"):
        await set_up_log("nats://127.0.0.1:9", LogSettings())
