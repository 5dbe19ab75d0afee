"""Tokens as issuers make them, and as attackers would."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

SECRET: Final = "a secret of thirty-two bytes or more"  # noqa: S105 - of tests
Key = OctKey | RSAKey | ECKey | OKPKey


def token_for(
    user: str,
    *,
    subscribe: Sequence[str] | None = None,
    publish: Sequence[str] | None = None,
    request: Sequence[str] | None = None,
    expires_in: float = 600.0,
    **claims: Any,
) -> str:
    """Return a token of *user* that is signed with SECRET."""
    asked = {"subscribe": subscribe, "publish": publish, "request": request}
    mesh = {name: list(texts) for name, texts in asked.items() if texts is not None}
    own: dict[str, Any] = {"sub": user, "exp": time.time() + expires_in}
    return sign(own | ({"mesh": mesh} if mesh else {}) | claims)


def sign(claims: dict[str, Any], key: Key | None = None, algorithm: str = "HS256") -> str:
    """Return *claims* as a token; signed with SECRET if no *key* is given."""
    header = {"alg": algorithm}
    if key is not None and key.kid is not None:
        header["kid"] = key.kid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # of EdDSA, which has another name by now
        return jwt.encode(header, claims, key or OctKey.import_key(SECRET), algorithms=[algorithm])


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries *token*."""
    return {"Authorization": f"Bearer {token}"}
