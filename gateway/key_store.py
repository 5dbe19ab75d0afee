"""Keys by which tokens are checked: kept, and fetched anew when a token names one not known.

While nobody answers where they come from, those that were fetched last go on being used. The
rate of fetching is bounded, however many unknown keys the tokens of strangers name.
"""

from __future__ import annotations

import asyncio
import math
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from typing import Final, Self

import structlog

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.signing_keys import (
    SECRET_ALGORITHM,
    KeysByAlgorithm,
    SigningKey,
    parse_jwks,
    secret_keys,
)
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import BadRequestError, UnauthorizedError, UnavailableError

Fetch = Callable[[], Awaitable[bytes]]

REFRESH_EVERY: Final = 300.0
"""Seconds after which a key that was taken out of the set isn't believed any more."""
FETCH_PAUSE: Final = 5.0
"""Seconds between two fetches, at least."""
_FETCH_WITHIN: Final = 4.0
_MAX_BYTES: Final = 1024 * 1024

log = structlog.get_logger(__name__)


class UnknownKeyError(UnauthorizedError):
    """The token names a key that isn't known: it may be a new one (see `KeyStore.refresh`)."""


class KeyStore:
    """The keys of a gateway.

    Args:
        fixed: A secret's, which are never fetched.
        fetch: Returns a JWK Set; `None` if there is none.
    """

    def __init__(self, fixed: KeysByAlgorithm, fetch: Fetch | None, clock: Clock) -> None:
        self._fixed = fixed
        self._fetch = fetch
        self._clock = clock
        self._fetched: KeysByAlgorithm | None = None
        self._tried_at = -math.inf
        self._is_fresh = False
        self._lock = asyncio.Lock()

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        """Return the keys that *settings* name."""
        secret, url = settings.jwt_secret, settings.jwks_url
        return cls(
            {} if secret is None else secret_keys(secret.get_secret_value()),
            None if url is None else fetch_from(url),
            clock,
        )

    def find(self, algorithm: str, key_id: str | None) -> SigningKey:
        """Return the key of that name, for that algorithm.

        Raises:
            UnknownKeyError: there is none. After `refresh` there may be.
        """
        if (own := self._fixed.get(algorithm)) is not None:
            return own[None]
        if self._fetch is None or algorithm == SECRET_ALGORITHM:
            raise UnauthorizedError(f"tokens signed by {algorithm} aren't accepted here")
        keys = (self._fetched or {}).get(algorithm, {})
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        try:
            return keys[key_id]
        except KeyError:
            raise UnknownKeyError("the token is signed by a key that isn't known here") from None

    async def refresh(self) -> None:
        """Fetch the keys, unless that was done only just now.

        Raises:
            UnavailableError: they have never been fetched, and can't be.
        """
        tried_before = self._tried_at
        async with self._lock:
            if (
                self._tried_at == tried_before
                and self._clock.monotonic() >= tried_before + FETCH_PAUSE
            ):
                await self._fetch_now()
        if self._fetched is None:
            raise UnavailableError(
                "the keys that tokens are signed with can't be fetched; try again soon"
            )

    async def run(self) -> None:
        """Keep the keys fresh, until cancelled."""
        if self._fetch is None:
            return
        while True:
            try:
                await self.refresh()
                pause = REFRESH_EVERY if self._is_fresh else FETCH_PAUSE
            except UnavailableError:
                pause = FETCH_PAUSE
            await self._clock.sleep(pause)

    async def _fetch_now(self) -> None:
        assert self._fetch is not None  # noqa: S101 - `find` raises before this is asked for
        try:
            self._is_fresh = False
            async with asyncio.timeout(_FETCH_WITHIN):  # urlopen's is for each piece
                self._fetched = parse_jwks(await self._fetch())
            self._is_fresh = True
        except (OSError, HTTPException, ValueError, BadRequestError) as error:
            log.warning(
                "the JWK Set can't be fetched; the last one counts", reason=str(error)[:200]
            )
        finally:
            self._tried_at = self._clock.monotonic()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Who says where keys are is the settings: not over plain http, for one."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirects)


def fetch_from(url: str) -> Fetch:
    """Return what fetches the JWK Set at *url*: https, http, or a file's."""

    async def fetch() -> bytes:
        return await asyncio.to_thread(_read, url)

    return fetch


def _read(url: str) -> bytes:
    with _OPENER.open(url, timeout=_FETCH_WITHIN) as answer:
        text: bytes = answer.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError(f"it has over {_MAX_BYTES:,} bytes")
    return text
