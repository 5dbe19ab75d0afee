"""What `mesh doctor` tries does no harm where it is let through, on one server and on three."""

from __future__ import annotations

import json

import nats
import pytest

from jarvis_mesh.cli.doctor_tries import CHANGES, NOT_STORED, tries_of
from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.config.nats_conf import SOURCES, USERS
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES
from tests.support.cluster import Cluster
from tests.support.log_reading import read_log
from tests.support.publishing import publisher


async def check_harmless(server: NatsServer | Cluster) -> None:
    """Try all of it as `admin`, who may, and fail unless each is refused and nothing changed."""
    async with publisher(server) as events:
        await events.publish_many(5)
    before = await read_log(server)
    admin = await nats.connect(server.url("admin").split(","))
    try:
        for stream in ("EVENTS", "KV_mesh_revoked"):
            for verb, body in CHANGES.items():
                subject = f"$JS.API.{verb}.{stream}"
                reply = await admin.request(subject, body, headers=NOT_STORED, timeout=5)
                assert json.loads(reply.data)["error"]["code"] >= 400, subject
        for subject in ("agent.mesh-doctor._.x._._._", "$KV.mesh_revoked.mesh-doctor"):
            reply = await admin.request(subject, b"", headers=NOT_STORED, timeout=5)
            assert "stream" in json.loads(reply.data)["error"]["description"]
        bucket = json.loads((await admin.request("$JS.API.STREAM.INFO.KV_mesh_revoked", b"")).data)
    finally:
        await admin.close()
    assert len(before) == 5
    assert await read_log(server) == before
    assert bucket["state"]["messages"] == 0


async def test_nothing_is_changed_on_one_server(nats_server: NatsServer) -> None:
    await check_harmless(nats_server)


async def test_nothing_is_changed_in_a_cluster(nats_cluster: Cluster) -> None:
    await check_harmless(nats_cluster)


@pytest.mark.parametrize("user", USERS)
def test_whatever_jetstream_or_the_log_would_do_is_tried_so_that_they_refuse(user: str) -> None:
    tries = tries_of(user, BUILT_IN_FAMILIES)
    for each in (*tries.must, *tries.must_not):
        verb = each.subject.removeprefix("$JS.API.").rpartition(".")[0]
        if each.verb == "publish" and verb in CHANGES:
            assert each.body == CHANGES[verb]


@pytest.mark.parametrize("user", SOURCES)
def test_every_other_source_and_every_other_inbox_is_tried(user: str) -> None:
    subjects = {each.subject for each in tries_of(user, BUILT_IN_FAMILIES).must_not}
    for source in {*SOURCES, "client", "cli"} - {user}:
        for family in BUILT_IN_FAMILIES:
            assert f"{family}.mesh-doctor._.{source}._._._" in subjects
    assert {f"_INBOX.{other}.>" for other in set(USERS) - {user}} <= subjects
