"""Who may do what. Permission is intersection, computed before anything is subscribed or read.

Every way of asking (subscribe, replay, streams, pages, publish, request) comes through here.

Source: docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jarvis_mesh.gateway.over_limit import BeyondError
from jarvis_mesh.gateway.service_pattern import ServicePattern
from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.errors import (
    BadRequestError,
    ChannelError,
    EventError,
    ForbiddenError,
    UnauthorizedError,
)
from jarvis_mesh.schema.filters import ANY, MAX_FILTERS, Filter, Place, permitted, routing_filter

MAX_CHANNELS: Final = 100
"""Of a subscription, unless the settings say otherwise."""
MAX_GRANTS: Final = 64
"""Of one kind in a token: each is intersected with each channel of a subscription."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What a client may see and say, until when, and by which token."""

    user: str | None
    """Whose events it publishes; `None` without authentication."""
    subscribe: tuple[Filter, ...]
    publish: tuple[Filter, ...] = ()
    request: tuple[ServicePattern, ...] = ()
    expires: float = math.inf
    """Seconds since 1970."""
    issued: float = -math.inf
    """Seconds since 1970; a token that doesn't say so counts as the oldest."""
    token_id: str | None = None
    """The token's `jti`."""

    def covers(self, filters: Sequence[Filter]) -> bool:
        """Say whether a subscription with these filters may go on."""
        return all(any(own.covers(each) for own in self.subscribe) for each in filters)

    def check_operator(self) -> None:
        """Return if the client may see everything, and so how the gateway fares.

        Raises:
            ForbiddenError: it may not.
        """
        if not self.covers((ANY,)):
            raise ForbiddenError('this is for operators, who are granted ["all"]')

    def check_publish(self, subject: str) -> None:
        """Return if an event may be published on *subject*.

        Raises:
            ForbiddenError: no grant passes it.
        """
        tokens = subject.split(".")
        if not any(own.matches(tokens) for own in self.publish):
            raise ForbiddenError(f"nothing that you were granted lets you publish on {subject}")

    def check_request(self, service: str, method: str) -> None:
        """Return if the service may be called.

        Raises:
            ForbiddenError: no grant passes it.
        """
        if self.user is None:
            raise ForbiddenError("without authentication no service can be called")
        if not any(own.matches(service, method) for own in self.request):
            raise ForbiddenError(f"nothing that you were granted lets you call {service}.{method}")


ANYBODY: Final = Grants(user=None, subscribe=(ANY,), publish=(ANY,))
"""A client of a gateway without authentication."""


def grants_of(claims: Mapping[str, Any]) -> Grants:
    """Return what the claims of a token, which was verified, grant.

    Args:
        claims: With `exp`, a finite number.

    Raises:
        UnauthorizedError: a claim is missing or isn't what the protocol says.
    """
    user = claims.get("sub")
    if not isinstance(user, str) or not user:
        raise UnauthorizedError("the token's sub isn't a user's name")
    try:
        own = routing_filter(Place.USER, user)
    except EventError as error:
        raise UnauthorizedError(f"the token's sub can't be a user: {error.message}") from None
    mesh = claims.get("mesh", {})
    if not isinstance(mesh, dict):
        raise UnauthorizedError("the token's mesh isn't a map")
    token_id, issued = claims.get("jti"), claims.get("iat")
    return Grants(
        user=user,
        subscribe=_filters(mesh, "subscribe") if "subscribe" in mesh else (own,),
        publish=_filters(mesh, "publish"),
        request=tuple(_pattern(text) for text in _texts(mesh, "request")),
        expires=float(claims["exp"]),
        issued=-math.inf if issued is None else float(issued),
        token_id=token_id if isinstance(token_id, str) else None,
    )


def filters_for(
    channels: Sequence[str], grants: Grants, max_channels: int = MAX_CHANNELS
) -> tuple[Filter, ...]:
    """Return the filters of a subscription: its channels, within what is granted.

    Raises:
        BadRequestError: no channel at all.
        ChannelError: a channel doesn't parse.
        LimitError: too many channels or filters.
        ForbiddenError: nothing of it is granted.
    """
    if not channels:
        raise BadRequestError("channels: name at least one")
    if len(channels) > max_channels:
        raise BeyondError(
            "channels", f"a subscription has at most {max_channels} channels; open several"
        )
    filters = permitted([parse_channel(channel) for channel in channels], grants.subscribe)
    if not filters:
        raise ForbiddenError("none of these channels is granted to you")
    if len(filters) > MAX_FILTERS:
        raise BeyondError(
            "channels", f"a subscription has at most {MAX_FILTERS} filters; open several"
        )
    return filters


def _filters(mesh: Mapping[str, Any], key: str) -> tuple[Filter, ...]:
    try:
        return tuple(parse_channel(text) for text in _texts(mesh, key))
    except ChannelError as error:
        raise UnauthorizedError(f"the token's mesh.{key}: {error.message}") from None


def _pattern(text: str) -> ServicePattern:
    try:
        return ServicePattern.parse(text)
    except BadRequestError as error:
        raise UnauthorizedError(f"the token's mesh.request: {error.message}") from None


def _texts(mesh: Mapping[str, Any], key: str) -> Sequence[str]:
    texts = mesh.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UnauthorizedError(f"the token's mesh.{key} isn't a list of texts")
    if len(texts) > MAX_GRANTS:
        raise UnauthorizedError(f"the token's mesh.{key} has over {MAX_GRANTS} grants")
    return texts
