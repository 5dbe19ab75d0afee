"""Channels: the text a client writes for a filter.

    all · shared · event:… · source:… · entity:… · user:… · session:… · a&b · NATS patterns

Anything else is a `ChannelError` that says what would have been right.

Source: docs/protocol.md, "Channels".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from jarvis_mesh.schema.errors import ChannelError, EventError
from jarvis_mesh.schema.filters import ANY, FREE, SHARED, Filter, Place, routing_filter
from jarvis_mesh.schema.subjects import MAX_SUBJECT_BYTES, NONE, TOKENS, TYPE_TOKEN

MAX_CHANNEL_BYTES: Final = 2048
"""Longest channel text: five keys whose values are written entirely as `%XX`."""

_ROUTING: Final = {
    "source": Place.SOURCE,
    "entity": Place.ENTITY,
    "user": Place.USER,
    "session": Place.SESSION,
}
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@lru_cache(maxsize=4096)  # many clients watch the same: then they share one filter
def parse_channel(text: str) -> Filter:
    """Return the filter that a channel stands for.

    Raises:
        ChannelError: *text* is no channel.
    """
    if len(text.encode(errors="replace")) > MAX_CHANNEL_BYTES:
        raise ChannelError(f"a channel has at most {MAX_CHANNEL_BYTES} bytes")
    if text == "all":
        return ANY
    if text == "shared":
        return SHARED
    try:
        return _parse_terms(text) if ":" in text else _parse_pattern(text)
    except (ValueError, EventError) as error:
        reason = error.message if isinstance(error, EventError) else str(error)
        raise ChannelError(f"{text[:100]!r} is no channel: {reason}") from None


def _parse_terms(text: str) -> Filter:
    """Parse `key:value&key:value`: all must hold, each key once."""
    result = ANY
    seen = set()
    for term in text.split("&"):
        key, colon, value = term.partition(":")
        if not colon or (key != "event" and key not in _ROUTING):
            raise ValueError(
                f"{term[:60]!r} should be event:…, source:…, entity:…, user:… or session:…"
                " (write & within a value as %26)"
            )
        if key in seen:
            raise ValueError(f"the key {key!r} stands twice; events would have to be both")
        seen.add(key)
        parsed = (
            _parse_event(value)
            if key == "event"
            else routing_filter(_ROUTING[key], _unescape(value))
        )
        common = result.intersect(parsed)
        if common is None:  # different keys pin different tokens, so only the length can forbid it
            raise ValueError(f"its values together take over {MAX_SUBJECT_BYTES} bytes")
        result = common
    return result


def _parse_event(spec: str) -> Filter:
    """Parse what follows `event:`: up to three type tokens, `*` for one, `**` for any more."""
    tokens = spec.split(":")
    any_depth = tokens[-1] == "**"
    if any_depth:
        tokens = tokens[:-1]
    if any(token != FREE and not TYPE_TOKEN.fullmatch(token) for token in tokens):
        raise ValueError(
            "after event: come type tokens such as agent:task:started, * for one of them, "
            "or a final ** for any depth"
        )
    if any_depth:
        if len(tokens) > 2:
            raise ValueError("a type has at most three tokens, so ** is at most the third")
        tokens += [FREE] * (3 - len(tokens))
    elif len(tokens) == 2:
        tokens.append(NONE)
    elif len(tokens) != 3:
        raise ValueError("a type has two or three tokens; for a whole family write event:FAMILY:**")
    return Filter((*tokens, *ANY.tokens[3:]))


def _unescape(value: str) -> str:
    """Return the text that a written value stands for: `%XX` is that byte, the rest literal."""
    if _STRAY_PERCENT.search(value):
        raise ValueError("write % within a value as %25")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        raise ValueError("the value isn't UTF-8") from None


def _parse_pattern(text: str) -> Filter:
    """Parse a NATS pattern: tokens as they stand, missing ones free."""
    tokens = text.split(".")
    if len(tokens) > TOKENS:
        raise ValueError(f"a pattern has at most {TOKENS} tokens, this one {len(tokens)}")
    if tokens[-1] == ">":
        tokens[-1] = FREE
    tokens += [FREE] * (TOKENS - len(tokens))
    try:
        return Filter(tuple(tokens))
    except ValueError:
        raise ValueError(
            "a NATS pattern's tokens are *, a final >, or A-Z a-z 0-9 _ - and %XX, "
            "128 bytes at most each and 512 together"
        ) from None
