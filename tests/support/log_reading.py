"""What the log holds, read without any of our own readers."""

from __future__ import annotations

import json
from dataclasses import dataclass

import nats

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema import Event, decode_body
from tests.support.cluster import Cluster


@dataclass(frozen=True)
class Logged:
    """An event and where it stands."""

    seq: int
    subject: str
    event: Event


async def read_log(server: NatsServer | Cluster, filter_subject: str = ">") -> list[Logged]:
    """Return every event of the log on *filter_subject*, in order."""
    connection = await nats.connect(server.url("admin").split(","))
    found: list[Logged] = []
    try:
        inbox = connection.new_inbox()
        answers = await connection.subscribe(inbox)
        while True:
            page = {
                "seq": found[-1].seq + 1 if found else 1,
                "next_by_subj": filter_subject,
                "batch": 256,
            }
            await connection.publish(
                "$JS.API.DIRECT.GET.EVENTS", json.dumps(page).encode(), reply=inbox
            )
            before = len(found)
            while "Nats-Sequence" in ((message := await answers.next_msg(10)).headers or {}):
                headers = message.headers or {}
                found.append(
                    Logged(
                        int(headers["Nats-Sequence"]),
                        headers["Nats-Subject"],
                        decode_body(message.data),
                    )
                )
            if len(found) == before:
                return found
    finally:
        await connection.close()
