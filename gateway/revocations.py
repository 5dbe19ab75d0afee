"""Tokens that were taken back before their time: the KV bucket `mesh_revoked`, followed.

The bucket is asked for its state twice a second, and read on from where it was read last. A
watch would be one more thing that can break without a word, and this costs one short answer.

Source: NATS ADR-8 (KV), ADR-31 (Direct Get); docs/protocol.md, "Revocation".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from jarvis_mesh.config.revoked import STREAM, SUBJECT_PREFIX, Revocation, decode_revocation
from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.inbox import Answer, Inbox
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import MeshError, UnauthorizedError, UnavailableError

POLL: Final = 0.5
"""Seconds; a revocation is promised to work within two."""
_BATCH: Final = 256
_ANSWER_WITHIN: Final = 1.0
_NO_STREAM: Final = 10059
_STATE: Final = f"$JS.API.STREAM.INFO.{STREAM}"
_READ: Final = f"$JS.API.DIRECT.GET.{STREAM}"
_SUBJECT: Final = b"\r\nNats-Subject: "
_SEQUENCE: Final = b"\r\nNats-Sequence: "
_OPERATION: Final = b"\r\nKV-Operation: "

log = structlog.get_logger(__name__)


class Revocations:
    """What was taken back.

    Args:
        inbox: Asks NATS.
        on_change: Called after something was taken back that wasn't before.
    """

    def __init__(self, inbox: Inbox, on_change: Callable[[], None], clock: Clock) -> None:
        self.are_known = False
        """Whether the bucket has been read."""
        self._inbox = inbox
        self._on_change = on_change
        self._clock = clock
        self._entries: dict[str, Revocation] = {}
        self._made = ""
        self._read_seq = 0
        self._said = ""

    def check(self, grants: Grants) -> None:
        """Return if the token that gave *grants* counts.

        Raises:
            UnauthorizedError: it was revoked.
            UnavailableError: that isn't known yet.
        """
        if not self.are_known:
            raise UnavailableError("the gateway doesn't know yet which tokens are revoked")
        if self.cover(grants):
            raise UnauthorizedError("the token was revoked")

    def cover(self, grants: Grants) -> bool:
        """Say whether the token that gave *grants* was revoked."""
        if not self._entries:
            return False
        of_user = self._entries.get(Revocation(user=grants.user).subject)
        if of_user is not None and grants.issued <= of_user.before:
            return True
        token_id = grants.token_id
        return token_id is not None and Revocation(id=token_id).subject in self._entries

    async def run(self) -> None:
        """Follow the bucket until cancelled."""
        while True:
            try:
                await self._follow()
                self._said = ""
            except MeshError as error:
                if error.message != self._said:
                    log.warning("revocations can't be read", error=error.message)
                self._said = error.message
            await self._clock.sleep(POLL)

    async def _follow(self) -> None:
        made, last_seq = await self._state()
        if made != self._made:
            self._made, self._read_seq = made, 0
            self._entries.clear()
        read_before = self._read_seq
        try:
            while self._read_seq < last_seq and (answers := await self._read()):
                for answer in answers:
                    self._take(answer)
            # Without an answer what was last is gone, or the peer lags: the next look tells.
            self.are_known = True
        finally:
            if self._read_seq != read_before:
                self._on_change()

    async def _state(self) -> tuple[str, int]:
        """Return when the bucket was made and its last sequence; nothing if there is none."""
        answers = await self._inbox.ask(_STATE, b"", within=_ANSWER_WITHIN)
        info = json.loads(answers[-1].body)
        if error := info.get("error"):
            if error.get("err_code") == _NO_STREAM:
                return "", 0
            raise UnavailableError(f"the bucket of revocations: {error.get('description')}")
        return info["created"], info["state"]["last_seq"]

    async def _read(self) -> list[Answer]:
        request = {"seq": self._read_seq + 1, "next_by_subj": f"{SUBJECT_PREFIX}>", "batch": _BATCH}
        answers = await self._inbox.ask(_READ, json.dumps(request).encode(), is_last=_is_end)
        return answers[:-1]

    def _take(self, answer: Answer) -> None:
        self._read_seq = max(self._read_seq, int(_value(answer, _SEQUENCE)))
        subject = _value(answer, _SUBJECT)
        if _value(answer, _OPERATION):  # by a KV tool: the entry was deleted
            self._entries.pop(subject, None)
            return
        try:
            self._entries[subject] = decode_revocation(answer.body)
        except msgspec.DecodeError as error:
            log.warning("a revocation can't be read: revoke again", key=subject, error=str(error))


def _value(answer: Answer, header: bytes) -> str:
    """Return what the server's *header* says, which comes after the writer's own."""
    _, found, rest = answer.headers.rpartition(header)
    return rest.partition(b"\r\n")[0].decode() if found else ""


def _is_end(answer: Answer) -> bool:
    return bool(answer.status)
