"""Who may do what. Permission is intersection, computed before anything is subscribed or read.

Source: docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.errors import BadRequestError, ForbiddenError, LimitError
from jarvis_mesh.schema.filters import ANY, MAX_FILTERS, Filter, permitted
from jarvis_mesh.schema.wire import Limits

LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Grants:
    """What a client may see and say."""

    user: str | None
    """Whose events it publishes; `None` without authentication."""
    subscribe: tuple[Filter, ...]


ANYBODY: Final = Grants(user=None, subscribe=(ANY,))
"""A client of a gateway without authentication, which therefore listens on loopback only."""


def filters_for(channels: Sequence[str], grants: Grants) -> tuple[Filter, ...]:
    """Return the filters of a subscription: its channels, within what is granted.

    Raises:
        BadRequestError: no channel at all.
        ChannelError: a channel doesn't parse.
        LimitError: too many channels or filters.
        ForbiddenError: nothing of it is granted.
    """
    if not channels:
        raise BadRequestError("channels: name at least one")
    if len(channels) > LIMITS.channels:
        raise LimitError(f"a subscription has at most {LIMITS.channels} channels; open several")
    filters = permitted([parse_channel(channel) for channel in channels], grants.subscribe)
    if not filters:
        raise ForbiddenError("none of these channels is granted to you")
    if len(filters) > MAX_FILTERS:
        raise LimitError(f"a subscription has at most {MAX_FILTERS} filters; open several")
    return filters
