"""Who asks over HTTP: how often he may, by which token, and what that grants.

Source: docs/protocol.md, "HTTP" and "Tokens".
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who asks."""

    grants: Grants
    address: str | None
    """As what he is counted; `None` if he isn't."""


def knock(request: HTTPConnection, gateway: Gateway) -> str | None:
    """Count a request, or a handshake; return as what its client is counted by address.

    Raises:
        BusyError: too many in too short a time.
    """
    peer = None if request.client is None else request.client.host
    limits = gateway.services.limits
    address = limits.address_of(peer, request.headers.getlist("x-forwarded-for"))
    limits.knock(address)
    return address


async def admit(
    request: HTTPConnection, gateway: Gateway, query_token: str | None = None
) -> Admitted:
    """Return who asks.

    Raises:
        BusyError: too often.
        UnauthorizedError: without a valid token.
        UnavailableError: it can't be known now whether the token is valid.
    """
    address = knock(request, gateway)
    authorization = request.headers.getlist("authorization")
    tokens = gateway.services.tokens
    return Admitted(await tokens.authenticate_request(authorization, query_token), address)
