"""What each NATS user must be able to do, and what it must not: the tries of `mesh doctor`.

A try must do no harm where it is wrongly let through. An event comes with headers by which the
log refuses it; a request to JetStream contradicts itself, twice over where it could destroy
something; a request to a service names one that nobody serves; a live copy is dropped by gateways,
which count it as `foreign`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from jarvis_mesh.config import revoked
from jarvis_mesh.config.log import STREAM
from jarvis_mesh.config.nats_conf import ADMIN, CLIENT_SOURCE, GATEWAY, SERVICES, SOURCES, USERS

NOT_STORED: Final = {"Nats-Expected-Stream": "mesh-doctor", "Nats-Expected-Last-Sequence": "1"}
"""The log stores no message that expects another stream."""
_TICK: Final = f"mesh.tick._.{CLIENT_SOURCE}.mesh-doctor._._"
_REVOCATION: Final = f"{revoked.SUBJECT_PREFIX}mesh-doctor"
CHANGES: Final = {
    # To delete a stream, a request must be empty.
    "STREAM.DELETE": b'{"not": "to be done"}',
    # Up to a sequence and all but a number exclude each other, and nothing has that subject.
    # It must be an object: anything else (2.15) counts as no request, and purges everything.
    "STREAM.PURGE": b'{"filter": "mesh-doctor.nothing", "seq": 1, "keep": 1000000000}',
    "STREAM.UPDATE": b'{"name": "mesh-doctor"}',  # another stream's name
    "STREAM.MSG.DELETE": b'{"seq": 9223372036854775807}',
    "CONSUMER.CREATE": b'{"stream_name": "mesh-doctor", "config": {}}',
}
"""Requests that change a stream, each with a body by which JetStream refuses it."""


@dataclass(frozen=True, slots=True)
class Try:
    """One thing to try."""

    verb: Literal["publish", "subscribe"]
    subject: str
    why: str
    """What it would mean if it went the wrong way."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Tries:
    """What one user must and must not be let do."""

    must: list[Try] = field(default_factory=list)
    must_not: list[Try] = field(default_factory=list)


def tries_of(user: str, families: Sequence[str]) -> Tries:
    """Return what to try as *user*; of a user that isn't ours, only what nobody may."""
    if user == ADMIN:
        return Tries(_publish("can't do its work", _REVOCATION), _forged_copy(user))
    if user == GATEWAY:
        return _of_gateway(families)
    return _of_publisher(user, families)


def _of_gateway(families: Sequence[str]) -> Tries:
    advisory = f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}"
    must = [
        *_publish("can't publish for clients", *_events(CLIENT_SOURCE, families)),
        *_publish("can't tick", _TICK),
        *_publish("can't call services", "svc.mesh-doctor.probe"),
        *_publish(
            "can't read what is revoked",
            f"$JS.API.STREAM.INFO.{revoked.STREAM}",
            f"$JS.API.DIRECT.GET.{revoked.STREAM}",
        ),
        *_publish("can't read the log", f"$JS.API.DIRECT.GET.{STREAM}"),
        *_subscribe("can't follow the log", "live.>", advisory),
    ]
    must_not = [
        *_forged_copy(GATEWAY),
        *_not_as_others(CLIENT_SOURCE, families),
        *_no_changes(),
        *_not_overhear(GATEWAY),
        *_subscribe("could take requests", "svc.>"),
        *_subscribe("could read events unfiltered", *(f"{family}.>" for family in families)),
    ]
    return Tries(must, must_not)


def _of_publisher(user: str, families: Sequence[str]) -> Tries:
    service = SERVICES.get(user)
    must = [
        *_publish("can't publish", *_events(user, families)),
        *(_subscribe("can't serve", f"svc.{service}.*") if service else ()),
        *_subscribe("can't hear answers", f"_INBOX.{user}.mesh-doctor"),
    ]
    must_not = [
        *_forged_copy(user),
        *_not_as_others(user, families),
        *_no_changes(),
        *_not_overhear(user),
        *_publish("could forge ticks", _TICK),
        *_publish("could call services", "svc.mesh-doctor.probe"),
        *_publish("could read the log", f"$JS.API.DIRECT.GET.{STREAM}"),
        *_publish("could forge answers", f"_INBOX.{GATEWAY}.mesh-doctor"),
        *_subscribe("could take others' requests", "svc.>"),
        *_subscribe("could read events", "live.>", *(f"{family}.>" for family in families)),
    ]
    return Tries(must, must_not)


def _forged_copy(user: str) -> list[Try]:
    source = CLIENT_SOURCE if user in (GATEWAY, ADMIN) else user
    return _publish("could forge live copies", f"live.agent.mesh-doctor._.{source}._._._")


def _not_as_others(own: str, families: Sequence[str]) -> list[Try]:
    others = [source for source in (*SOURCES, CLIENT_SOURCE, "cli") if source != own]
    return [
        each
        for source in others
        for each in _publish(f"could speak as {source}", *_events(source, families))
    ]


def _no_changes() -> list[Try]:
    return [
        *(
            Try("publish", f"$JS.API.{verb}.{stream}", f"could change or delete {stream}", body)
            for stream in (STREAM, revoked.STREAM)
            for verb, body in CHANGES.items()
        ),
        *_publish("could revoke tokens", _REVOCATION),
    ]


def _not_overhear(user: str) -> list[Try]:
    inboxes = [f"_INBOX.{other}.>" for other in USERS if other != user]
    return [
        *_subscribe("could read everything", ">"),
        *_subscribe("could read others' answers", "_INBOX.>", *inboxes),
        *_subscribe("could read what is revoked", f"{revoked.SUBJECT_PREFIX}>"),
    ]


def _events(source: str, families: Sequence[str]) -> list[str]:
    return [f"{family}.mesh-doctor._.{source}._._._" for family in families]


def _publish(why: str, *subjects: str) -> list[Try]:
    return [Try("publish", subject, why) for subject in subjects]


def _subscribe(why: str, *subjects: str) -> list[Try]:
    return [Try("subscribe", subject, why) for subject in subjects]
