"""What `mesh doctor` finds out about NATS: the log, and what each user is let do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import nats.errors

from jarvis_mesh.cli.doctor_findings import Finding
from jarvis_mesh.cli.doctor_places import Place
from jarvis_mesh.cli.doctor_tries import NOT_STORED, Try, tries_of
from jarvis_mesh.config import revoked
from jarvis_mesh.config.log import STREAM, LogSettings, stream_config
from jarvis_mesh.config.nats_conf import ADMIN, GATEWAY
from jarvis_mesh.gateway.nats_connection import MIN_SERVER
from jarvis_mesh.schema.nats_client import SecureClient, explain_refusal
from jarvis_mesh.schema.nats_credentials import NatsCredentials

_WITHIN: Final = 5
"""Seconds for a connection, and for an answer."""
_NANOSECONDS: Final = 1_000_000_000
_MEND: Final = "write NATS's users anew (docs/operations.md) and reload it"
_MEND_LOG: Final = "start a gateway with MESH_NATS_ADMIN_URL: it makes and updates the log"


class NotConnectedError(Exception):
    """The reason."""


class Doctor(SecureClient):
    """A connection that notes what it is refused."""

    def __init__(self, credentials: NatsCredentials) -> None:
        super().__init__(credentials)
        self.told: list[str] = []
        self.refusal: str | None = None

    async def note(self, error: Exception) -> None:
        """Keep what nats-py tells."""
        self.told.append(str(error).lower() or repr(error))
        self.refusal = self.refusal or explain_refusal(error)

    async def refused(self, tries: Iterable[Try]) -> list[Try]:
        """Try everything and return what was refused."""
        tries = list(tries)
        self.told.clear()
        for each in tries:
            if each.verb == "subscribe":
                subscription = await self.subscribe(each.subject)
                await subscription.unsubscribe()
            else:
                await self.publish(each.subject, each.body, headers=NOT_STORED)
        # A refusal comes before the answer to what is sent after it. The first flush's question
        # overtakes what nats-py (2.16) still has in its buffer, and empties that.
        await self.flush(_WITHIN)
        await self.flush(_WITHIN)
        words = {"publish": "publish to", "subscribe": "subscription to"}
        return [
            each
            for each in tries
            if any(f'{words[each.verb]} "{each.subject.lower()}"' in text for text in self.told)
        ]

    async def ask(self, subject: str) -> dict[str, Any] | None:
        """Return JetStream's answer; `None` if the user may not ask, or nobody answers."""
        try:
            reply = await self.request(subject, b"", timeout=_WITHIN)
            answer: dict[str, Any] = json.loads(reply.data)
        except (nats.errors.Error, TimeoutError, ValueError):
            return None
        return answer


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Doctor]:
    """Yield a connection; raise `NotConnectedError` with the reason if there is none."""
    client = Doctor(place.credentials)
    try:
        try:
            await client.connect(
                place.url.split(","),
                name="mesh-doctor",
                inbox_prefix=f"_INBOX.{place.user}".encode(),
                connect_timeout=_WITHIN,
                max_reconnect_attempts=1,
                reconnect_time_wait=0.05,  # type: ignore[arg-type]  # takes fractions
                error_cb=client.note,
                **place.credentials.options(place.url),
            )
        except (OSError, nats.errors.Error, TimeoutError) as error:
            reason = client.refusal or (client.told[-1] if client.told else repr(error))
            raise NotConnectedError(reason) from None
        yield client
    finally:
        if client._current_server is not None:  # a refused one too has a socket to close
            await client.close()


async def examine_nats(places: Sequence[Place], log: LogSettings) -> list[Finding]:
    """Return what is found with these users and a log that should be as *log* says."""
    findings = [await _examine_strangers(places[0])]
    log_findings: list[Finding] = []
    for place in places:
        try:
            async with connected(place) as client:
                findings.append(_examine_server(place, client))
                findings += await _examine_user(place, client, log)
                if place.user in (ADMIN, GATEWAY) and not log_findings:
                    log_findings = await _examine_log(client, log)
        except NotConnectedError as error:
            wrong = f"{error}; is it started, and the password or nkey right?"
            findings.append(Finding(f"NATS lets {place.user} in", wrong))
    unknown = Finding("the log is as it should be", "needs the user gateway or admin", unknown=True)
    return findings + (log_findings or [unknown])


async def _examine_strangers(place: Place) -> Finding:
    claim = "NATS lets nobody in without a password or an nkey"
    urls = ",".join(_without_user(url) for url in place.url.split(","))
    stranger = Place("stranger", urls, replace(place.credentials, nkey_seed=None))
    try:
        async with connected(stranger):
            return Finding(claim, "it does: start it with our nats.conf, which has users")
    except NotConnectedError as error:
        if "refuses" in str(error):
            return Finding(claim)
        return Finding(claim, str(error), unknown=True)


def _examine_server(place: Place, client: Doctor) -> Finding:
    version = client.connected_server_version
    number = f"{version.major}.{version.minor}.{version.patch}"
    claim = f"NATS {number} lets {place.user} in and has JetStream"
    if (version.major, version.minor) < MIN_SERVER:
        return Finding(claim, "it is too old: 2.11 or newer is needed")
    if not client._server_info.get("jetstream"):
        return Finding(claim, "JetStream is off: start it with our nats.conf, or with -js")
    return Finding(claim)


async def _examine_user(place: Place, client: Doctor, log: LogSettings) -> list[Finding]:
    tries = tries_of(place.user, log.families)
    lacks = await client.refused(tries.must)
    held_back = await client.refused(tries.must_not)
    findings = [
        Finding(f"{place.user} may {each.verb} {each.subject}", f"it {each.why}: {_MEND}")
        for each in lacks
    ] + [
        Finding(f"{place.user} may not {each.verb} {each.subject}", f"it {each.why}: {_MEND}")
        for each in tries.must_not
        if each not in held_back
    ]
    count = len(tries.must_not)
    right = f"{place.user} may do what it needs, and nothing that it must not ({count} tried)"
    return findings or [Finding(right)]


async def _examine_log(client: Doctor, log: LogSettings) -> list[Finding]:
    events = await client.ask(f"$JS.API.STREAM.INFO.{STREAM}")
    bucket = await client.ask(f"$JS.API.STREAM.INFO.{revoked.STREAM}")
    current = (events or {}).get("config", {})
    # How much is kept is the operator's choice, and `mesh up` goes by the disk.
    chosen = replace(
        log,
        max_age=current.get("max_age", 0) / _NANOSECONDS or log.max_age,
        max_bytes=current.get("max_bytes", log.max_bytes),
        replicas=current.get("num_replicas", log.replicas),
    )
    return [
        _compare(f"the log {STREAM}", events, stream_config(chosen)),
        _compare(f"the bucket {revoked.BUCKET}", bucket, revoked.bucket_config(chosen.replicas)),
    ]


def _compare(name: str, answer: dict[str, Any] | None, wanted: dict[str, Any]) -> Finding:
    claim = f"{name} is as it should be"
    if answer is None:
        return Finding(claim, f"nobody says what it is: {_MEND_LOG}")
    if error := answer.get("error"):
        return Finding(claim, f"{error.get('description')}: {_MEND_LOG}")
    current = answer["config"]
    wrong = [key for key, value in wanted.items() if current.get(key) != value]
    if wrong:
        what = ", ".join(f"{key} is {json.dumps(current.get(key))}" for key in wrong)
        return Finding(claim, f"{what}: {_MEND_LOG}")
    return Finding(claim)


def _without_user(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
