"""Our matching is nats-server's own: live subscriptions, and reads of the log."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.filters import ANY, FREE, Filter
from jarvis_mesh.schema.subjects import NONE, encode_token
from tests.support.waiting import wait_until

VALUES = ("a", "*", ">", "_", "a.b", "%", "ü", "A")
TOKENS = (NONE, *map(encode_token, VALUES))
FAMILIES = ("agent", "terminal")


def random_subject(choose: random.Random) -> str:
    head = (choose.choice(FAMILIES), choose.choice("xy"), choose.choice(("z", NONE)))
    return ".".join((*head, *(choose.choice(TOKENS) for _ in range(4))))


def random_filter(choose: random.Random) -> Filter:
    """Return a filter that pins some tokens of some subject."""
    subject = random_subject(choose).split(".")
    return Filter(tuple(FREE if choose.random() < 0.6 else token for token in subject))


async def test_live_subscriptions_agree(nats_server: NatsServer) -> None:
    choose = random.Random(7)
    filters = {ANY, *(random_filter(choose) for _ in range(300))}
    subjects = [random_subject(choose) for _ in range(300)]
    admin = await nats.connect(nats_server.url("admin"))
    received: Counter[tuple[str, str]] = Counter()

    def counting(pattern: str):  # type: ignore[no-untyped-def]
        async def count(message: Msg) -> None:
            received[pattern, message.subject] += 1

        return count

    try:
        for each in filters:
            await admin.subscribe(each.pattern, cb=counting(each.pattern))
        await admin.flush()
        for subject in subjects:
            await admin.publish(subject, b"")
        expected = Counter(
            (each.pattern, subject)
            for each in filters
            for subject in subjects
            if each.matches(subject.split("."))
        )
        await admin.flush()
        await wait_until(lambda: received.total() >= expected.total(), "every message")
        await admin.flush()
    finally:
        await admin.close()
    assert received == expected
    assert expected.total() > 3 * len(subjects)


async def test_reads_of_the_log_agree(nats_server: NatsServer) -> None:
    choose = random.Random(8)
    subjects = [random_subject(choose) for _ in range(200)]
    admin = await nats.connect(nats_server.url("admin"))
    try:
        log = [await store(admin, subject) for subject in subjects]
        assert all(one < other for one, other in pairwise(log))
        for each in [ANY, *(random_filter(choose) for _ in range(60))]:
            matching = [
                seq
                for seq, subject in zip(log, subjects, strict=True)
                if each.matches(subject.split("."))
            ]
            assert await read(admin, each.pattern) == matching, each
    finally:
        await admin.close()


async def store(admin: Client, subject: str) -> int:
    answer = await admin.request(subject, b"")
    return int(json.loads(answer.data)["seq"])


async def read(admin: Client, pattern: str) -> list[int]:
    """Return the sequences that a batched Direct Get finds (NATS ADR-31)."""
    inbox = admin.new_inbox()
    answers = await admin.subscribe(inbox)
    request = {"seq": 1, "next_by_subj": pattern, "batch": 256}
    await admin.publish("$JS.API.DIRECT.GET.EVENTS", json.dumps(request).encode(), reply=inbox)
    found = []
    while (headers := (await answers.next_msg(timeout=10)).headers or {}) and (
        "Status" not in headers
    ):
        found.append(int(headers["Nats-Sequence"]))
    await answers.unsubscribe()
    return found


async def test_an_encoded_value_is_no_wildcard_to_the_server(nats_server: NatsServer) -> None:
    """The channel of a user named * passes that user's events alone, live and in the log."""
    admin = await nats.connect(nats_server.url("admin"))
    subjects = [f"agent.x._.s._.{encode_token(user)}._" for user in VALUES]
    try:
        log = {subject: await store(admin, subject) for subject in subjects}
        for user, subject in zip(VALUES, subjects, strict=True):
            channel = parse_channel(f"user:{user.replace('%', '%25')}")
            assert await read(admin, channel.pattern) == [log[subject]]
    finally:
        await admin.close()
