"""What a NATS URL looks like. Light enough for every command."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

_TCP: Final = frozenset({"nats", "tls"})
_WEBSOCKET: Final = frozenset({"ws", "wss"})
"""nats-py connects to servers of one kind or of the other, never to both."""


def check_nats_urls(text: str) -> None:
    """Return if *text* is a NATS URL, or several with commas between.

    Raises:
        ValueError: it isn't. The message says what would be, and never *text*: it may hold a
            password.
    """
    schemes = {_scheme(part) for part in text.split(",")}
    if not (schemes <= _TCP or schemes <= _WEBSOCKET):
        raise ValueError(
            "it is no NATS URL: write nats://user:password@host:4222 (or tls://, ws://, wss://; "
            "several of a kind with commas between)"
        )


def _scheme(url: str) -> str:
    """Return the scheme of *url*; nothing if the rest of it is wrong."""
    try:
        parts = urlsplit(url.lstrip())
        _ = parts.port  # a wrong one raises
    except ValueError:
        return ""
    return parts.scheme if parts.hostname else ""
