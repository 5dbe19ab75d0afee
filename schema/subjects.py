"""Subjects: the seven literal tokens that an event is published on.

    <family>.<name>.<name or _>.<source>.<entity>.<user>.<session>

Routing text (the last four) is percent-encoded so that no value can be a wildcard, a second
token, or `_`, which stands for "none". The encoding is canonical: one value, one token.

Source: docs/protocol.md, "Subjects".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from jarvis_mesh.schema.errors import EventError

TOKENS: Final = 7
"""Tokens of every subject: three of the type, four of routing."""
NONE: Final = "_"
"""The token of a value that isn't there."""
MAX_TOKEN_BYTES: Final = 128
MAX_SUBJECT_BYTES: Final = 512
LIVE_PREFIX: Final = "live."
"""What JetStream's republish puts before the subject of a live copy."""
TICK_FAMILY: Final = "mesh"
"""The family of the gateways' own ticks, never shown to clients."""

TYPE_TOKEN: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ENCODED: Final = r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+"
ENCODED_TOKEN: Final = re.compile(_ENCODED)
_SUBJECT: Final = re.compile(rf"{_ENCODED}(?:\.{_ENCODED}){{{TOKENS - 1}}}")


@lru_cache(maxsize=8192)
def encode_token(value: str) -> str:
    """Return the subject token of a routing value.

    Args:
        value: Any text of 1 to 128 bytes once encoded.

    Raises:
        EventError: *value* is empty, too long, or has half of a surrogate pair.
    """
    if not value:
        raise EventError("an empty string is no routing value; leave the key out instead")
    if len(value) > MAX_TOKEN_BYTES:  # before it is encoded: a value can be as long as an event
        raise EventError(_too_long(value, len(value)))
    try:
        # quote() leaves "." and "~" alone, whatever `safe` says.
        token = quote(value, safe="").replace(".", "%2E").replace("~", "%7E")
    except UnicodeEncodeError:
        raise EventError(
            f"{value[:40]!r} has half of a surrogate pair, which is no text; decode it properly"
        ) from None
    if token == NONE:
        return "%5F"
    if len(token) > MAX_TOKEN_BYTES:
        raise EventError(_too_long(value, len(token)))
    return token


def _too_long(value: str, size: int) -> str:
    return (
        f"{value[:40]!r}… takes {size} bytes or more as a subject token; "
        f"at most {MAX_TOKEN_BYTES} are allowed, so use a shorter id"
    )


def decode_token(token: str) -> str | None:
    """Return the value that a routing token stands for; `None` for `_`.

    Raises:
        EventError: *token* isn't one that `encode_token` makes.
    """
    if token == NONE:
        return None
    try:
        value = unquote_to_bytes(token).decode()
        if encode_token(value) == token:
            return value
    except (UnicodeDecodeError, EventError):
        pass  # said below, as for any other token that isn't canonical
    raise EventError(f"{token[:160]!r} isn't the encoding of any routing value")


def type_tokens(event_type: str) -> tuple[str, str, str]:
    """Return the three subject tokens of a type: `agent:created` is `agent created _`.

    Raises:
        EventError: not `family:name` or `family:name:name`.
    """
    parts = event_type.split(":")
    if len(parts) not in (2, 3) or not all(TYPE_TOKEN.fullmatch(part) for part in parts):
        raise EventError(
            f"{event_type[:100]!r} is no event type; write family:name or family:name:name "
            "in lower case, such as agent:task:started"
        )
    if any(len(part) > MAX_TOKEN_BYTES for part in parts):
        raise EventError(f"a part of type {event_type[:40]!r}… has over {MAX_TOKEN_BYTES} bytes")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else NONE


_cached_type_tokens = lru_cache(maxsize=1024)(type_tokens)


def subject_of(
    event_type: str,
    source: str,
    *,
    entity: str | None = None,
    user: str | None = None,
    session: str | None = None,
) -> str:
    """Return the one subject that an event with these values is published on.

    Raises:
        EventError: a value can't be a token, or the subject has over 512 bytes.
    """
    family, name, detail = _cached_type_tokens(event_type)
    subject = ".".join(
        (
            family,
            name,
            detail,
            encode_token(source),
            NONE if entity is None else encode_token(entity),
            NONE if user is None else encode_token(user),
            NONE if session is None else encode_token(session),
        )
    )
    if len(subject) > MAX_SUBJECT_BYTES:
        raise EventError(
            f"the event's subject takes {len(subject)} bytes, at most {MAX_SUBJECT_BYTES} are "
            "allowed; use shorter source, entity, user and session"
        )
    return subject


def is_subject(text: str) -> bool:
    """Say whether *text* is seven literal tokens within the limits."""
    return (
        len(text) <= MAX_SUBJECT_BYTES
        and _SUBJECT.fullmatch(text) is not None
        and all(len(token) <= MAX_TOKEN_BYTES for token in text.split("."))
    )
