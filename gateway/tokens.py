"""Tokens: JSON Web Tokens in, grants out.

Source: RFC 7519 (JWT), RFC 8725 (best practice), RFC 6750 (Bearer); docs/protocol.md, "Tokens".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jws import JWSRegistry, extract_compact, validate_compact

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.access import ANYBODY, Grants, grants_of
from jarvis_mesh.gateway.key_store import KeyStore, UnknownKeyError
from jarvis_mesh.gateway.revocations import Revocations
from jarvis_mesh.gateway.signing_keys import ALGORITHMS
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import UnauthorizedError

MAX_TOKEN_BYTES: Final = 16 * 1024
CLOCK_SKEW: Final = 30.0
"""Seconds that the issuer's clock may be ahead of ours. At `exp` there is no grace: by then a
token should have been replaced."""


class _Registry(JWSRegistry):
    """joserfc's rules for headers, without its warning at each token that is signed by EdDSA."""

    def get_alg(self, name: str) -> JWSAlgModel:
        return self.algorithms[name]  # which one is allowed was checked before


_REGISTRY: Final = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


class Tokens:
    """Checks tokens.

    Args:
        settings: Which issuer's, for which audience.
        keys: Theirs.
        revocations: What was taken back before its time.
    """

    def __init__(
        self, settings: Settings, keys: KeyStore, revocations: Revocations, clock: Clock
    ) -> None:
        self.are_required = settings.has_authentication
        """Whether nobody is served without one."""
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._keys = keys
        self._revocations = revocations
        self._clock = clock

    def check(self, token: str) -> Grants:
        """Return what *token* grants.

        Raises:
            UnknownKeyError: it names a key that isn't known; `authenticate` fetches that.
            UnauthorizedError: it isn't valid, not yet, or no longer. The message never has it.
            UnavailableError: which tokens were revoked isn't known yet.
        """
        grants = grants_of(self._verified_claims(token))
        self._revocations.check(grants)
        return grants

    def recheck(self, grants: Grants) -> None:
        """Return if what was granted some time ago still is. Raises as `check`."""
        if not self.are_required:
            return
        if grants.expires <= self._clock.time_ms() / 1000:
            raise UnauthorizedError("the token has expired")
        self._revocations.check(grants)

    async def authenticate(self, token: str) -> Grants:
        """Return what *token* grants, whose key may have to be fetched. Raises as `check`."""
        try:
            return self.check(token)
        except UnknownKeyError:
            await self._keys.refresh()
            return self.check(token)

    def check_header(self, authorization: Sequence[str]) -> Grants | None:
        """Return what a handshake with these Authorization headers is granted.

        Without authentication that is everything; `None` if the token is still to come. Raises
        as `check`.
        """
        if not self.are_required:
            return ANYBODY
        token = _bearer(authorization)
        return None if token is None else self.check(token)

    async def authenticate_handshake(self, authorization: Sequence[str]) -> Grants | None:
        """Do what `check_header` does, with a key that may have to be fetched."""
        try:
            return self.check_header(authorization)
        except UnknownKeyError:
            await self._keys.refresh()
            return self.check_header(authorization)

    async def authenticate_request(
        self, authorization: Sequence[str], query_token: str | None = None
    ) -> Grants:
        """Return what a request is granted by its Authorization header, or its query.

        Raises as `check`; also UnauthorizedError without a token.
        """
        if not self.are_required:
            return ANYBODY
        token = _bearer(authorization) or query_token
        if token is None:
            raise UnauthorizedError("a token is needed: Authorization: Bearer <jwt>")
        return await self.authenticate(token)

    def _verified_claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_BYTES:
            raise UnauthorizedError(f"a token has at most {MAX_TOKEN_BYTES:,} bytes")
        try:
            parsed = extract_compact(token.encode("ascii"))
            header = parsed.headers()
            algorithm, key_id = header["alg"], header.get("kid")
            if algorithm not in ALGORITHMS:
                raise UnauthorizedError(f"tokens are signed by {', '.join(ALGORITHMS)}")
            key = self._keys.find(algorithm, key_id if isinstance(key_id, str) else None)
            if not validate_compact(parsed, key, registry=_REGISTRY):
                raise UnauthorizedError("the token's signature is wrong")
            claims = json.loads(parsed.payload)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise UnauthorizedError("the token isn't a signed JWT in its compact form") from None
        if not isinstance(claims, dict):
            raise UnauthorizedError("the token's claims aren't a map")
        self._check_claims(claims)
        return claims

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.time_ms() / 1000
        if _time(claims, "exp", required=True) <= now:
            raise UnauthorizedError("the token has expired")
        if _time(claims, "nbf") > now + CLOCK_SKEW or _time(claims, "iat") > now + CLOCK_SKEW:
            raise UnauthorizedError("the token isn't valid yet: is the issuer's clock right?")
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise UnauthorizedError(f"the token's iss isn't {self._issuer!r}")
        audience = claims.get("aud")
        meant_for = audience if isinstance(audience, list) else [audience]
        if self._audience is not None and self._audience not in meant_for:
            raise UnauthorizedError(f"the token's aud isn't {self._audience!r}")


def _bearer(authorization: Sequence[str]) -> str | None:
    """Return the token of these Authorization headers; `None` without any."""
    if not authorization:
        return None
    scheme, _, token = authorization[0].partition(" ")
    if len(authorization) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("Authorization should be: Bearer <jwt>")
    return token.strip()


def _time(claims: Mapping[str, Any], name: str, *, required: bool = False) -> float:
    """Return the time that a claim holds, in seconds since 1970."""
    if name not in claims and not required:
        return -math.inf
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_sane(value):
        raise UnauthorizedError(f"the token's {name} isn't a time: seconds since 1970")
    return float(value)


def _is_sane(seconds: float) -> bool:
    return 0 <= seconds < 1e12
