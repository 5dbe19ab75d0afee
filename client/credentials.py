"""What a client shows a gateway: no token, a fixed one, or one that it asks its user for.

A token is a secret: whoever has it is its user. So it is in no error, log line or repr, and it
travels in a header or a message, never in a URL, which others write down.

Source: RFC 6750, section 2.1; docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from jarvis_mesh.schema.errors import SetupError, UnauthorizedError
from jarvis_mesh.schema.wire import Welcome

GetToken: TypeAlias = Callable[[], Awaitable[str]]
ASK_WITHIN: Final = 10.0
"""Seconds that `get_token` has."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_FORM: Final = "a token is one word of letters, digits and -._~+/, without a line break"

log = logging.getLogger(__name__)


class Credentials:
    """Where the connections of one `Mesh` get their token.

    Args:
        url: The gateway's, as `socket_url` returns it.
        token: A fixed one.
        get_token: Returns one that is fresh; called once at a time.

    Raises:
        SetupError: both are given, the fixed one can't be one, or *url* has a user of its own.
    """

    def __init__(
        self, url: str, *, token: str | None = None, get_token: GetToken | None = None
    ) -> None:
        if token is not None and get_token is not None:
            raise SetupError("token and get_token are both given: keep one")
        if token is not None and not _TOKEN.fullmatch(token):
            raise SetupError(f"token: {_FORM}")
        self._url = url
        self._fixed = token
        self._get_token = get_token
        self._asking = asyncio.Lock()
        self._was_unused = False
        if not self.are_none:
            _check_way(url)

    @property
    def are_none(self) -> bool:
        """Whether there is no token, and none to be had."""
        return self._fixed is None and self._get_token is None

    @property
    def can_renew(self) -> bool:
        """Whether a token that isn't taken can be followed by another."""
        return self._get_token is not None

    async def token(self, within: float = ASK_WITHIN) -> str | None:
        """Return the token to show now; `None` without any.

        Args:
            within: Seconds that `get_token` has.

        Raises:
            UnauthorizedError: `get_token` gave none. What it raised is the cause, which isn't
                quoted: others' errors can quote a token.
        """
        if self._get_token is None:
            return self._fixed
        try:
            async with asyncio.timeout(within) as limit, self._asking:
                token: object = await self._get_token()  # others' code needn't be typed
        except Exception as error:  # nor raise what it is told to
            why = f"no answer within {within:g} s" if limit.expired() else type(error).__name__
            raise UnauthorizedError(f"get_token failed: {why}") from error
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UnauthorizedError(f"get_token didn't return a token: {_FORM}")
        return token

    def welcomed(self, welcome: Welcome) -> None:
        """Say, once, when the gateway takes no notice of the token."""
        if welcome.auth == "none" and not self.are_none and not self._was_unused:
            self._was_unused = True
            log.warning("the gateway at %s has no authentication: the token is unused", self._url)


def _check_way(url: str) -> None:
    """Warn when a token would travel in the clear.

    Raises:
        SetupError: the URL has a user, which would take the same header.
    """
    parts = urlsplit(url)
    if parts.username is not None:
        raise SetupError("the URL has a user in it: leave that out, the token says who you are")
    if parts.scheme == "ws" and not is_loopback(parts.hostname or ""):
        log.warning(
            "the token goes to %s unencrypted, for everybody on the way to read: use https or wss",
            parts.hostname,
        )


def is_loopback(host: str) -> bool:
    """Say whether *host* is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
