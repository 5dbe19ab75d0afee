"""What the log says to a published event.

Source: NATS ADR-22, "JetStream Publish Retries on No Responders"; the JetStream API's PubAck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

_NO_RESPONDERS: Final = b"NATS/1.0 503"
_SERVER_ERRORS: Final = 500
"""From here on an error is the server's state, not the event's form: it can pass."""
_PASSING: Final = frozenset({10158, 10167})
"""Error codes of what passes although it is below 500: an earlier try of the same id is being
stored by a cluster; too many requests."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The log has it."""

    seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The log hasn't confirmed it."""

    reason: str
    final: bool
    """Trying again changes nothing."""
    undecided: bool = False
    """It may be in the log all the same: a cluster had begun to store it."""


class _Error(msgspec.Struct):
    code: int = _SERVER_ERRORS
    err_code: int = 0
    description: str = "unknown reason"


class _PubAck(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_PubAck)


def parse_answer(headers: bytes, body: bytes) -> Stored | Refused:
    """Return what a message in the publisher's inbox means."""
    if headers.startswith(_NO_RESPONDERS):
        return Refused(
            "no stream takes the event now: the log is starting, or lacks its family", final=False
        )
    try:
        ack = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reason = f"an answer that isn't JetStream's: {body[:80]!r}"
        return Refused(reason, final=False, undecided=True)
    if ack.error is not None:
        final = ack.error.code < _SERVER_ERRORS and ack.error.err_code not in _PASSING
        # A node that fails while it stores has told the others already.
        return Refused(ack.error.description, final=final, undecided=not final)
    return Stored(ack.seq)
