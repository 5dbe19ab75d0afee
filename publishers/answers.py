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
"""Error codes below 500 that are the server's state all the same: the cluster is still storing
an event of this id, sent before the last retry; too many requests."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The log has it."""

    seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The log hasn't taken it."""

    reason: str
    final: bool
    """Trying again changes nothing."""


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
        return Refused(f"an answer that isn't JetStream's: {body[:80]!r}", final=False)
    if ack.error is not None:
        error = ack.error
        final = error.code < _SERVER_ERRORS and error.err_code not in _PASSING
        return Refused(error.description, final=final)
    return Stored(ack.seq)
