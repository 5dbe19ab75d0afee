"""The keys that tokens are signed with: one secret, or the public keys of a JWK Set.

Each algorithm has its own kind of key and is looked up among those alone, so no token can choose
how another kind of key is used: a public key is never taken for a secret.

Source: RFC 7517 (JWK), RFC 7518 section 3.1 (algorithms), RFC 8037 (EdDSA); RFC 8725 section 3.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from jarvis_mesh.schema.errors import BadRequestError

SECRET_ALGORITHM: Final = "HS256"  # noqa: S105 - an algorithm's name
ALGORITHMS: Final = (SECRET_ALGORITHM, "RS256", "ES256", "EdDSA")
_MIN_RSA_BITS: Final = 2048
_MAX_KEYS: Final = 100
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
"""What only the issuer should have; a signature is checked without it."""

SigningKey = OctKey | RSAKey | ECKey | OKPKey
KeysByAlgorithm = Mapping[str, Mapping[str | None, SigningKey]]
"""The keys of an algorithm by their `kid`."""

log = structlog.get_logger(__name__)


def parse_jwks(text: bytes) -> KeysByAlgorithm:
    """Return the keys of a JWK Set that can check signatures; others are left out, and logged.

    Raises:
        BadRequestError: it is no JWK Set.
    """
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadRequestError('it is no JWK Set, {"keys": [...]}') from None
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise BadRequestError(f"keys: a list of at most {_MAX_KEYS}")
    found: dict[str, dict[str | None, SigningKey]] = {}
    for jwk in keys:
        try:
            algorithm, key = _parse_key(jwk)
        except (BadRequestError, JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("a key of the JWK Set isn't used", reason=str(error)[:200])
        else:
            found.setdefault(algorithm, {})[key.kid] = key
    return found


def secret_keys(secret: str) -> KeysByAlgorithm:
    """Return the one key that a shared secret is; it needs no `kid`."""
    return {SECRET_ALGORITHM: {None: OctKey.import_key(secret)}}


def _parse_key(jwk: Any) -> tuple[str, SigningKey]:
    if not isinstance(jwk, dict):
        raise BadRequestError("a key is a map")
    algorithm = _algorithm_of(jwk)
    if jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        raise BadRequestError(f"it isn't for {algorithm} signatures")
    public = {name: value for name, value in jwk.items() if name not in _PRIVATE}
    key = import_key(public)
    if isinstance(key, RSAKey) and key.raw_value.key_size < _MIN_RSA_BITS:
        raise BadRequestError(f"RSA keys have at least {_MIN_RSA_BITS} bits")
    return algorithm, key


def _algorithm_of(jwk: Mapping[str, Any]) -> str:
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", _:
            return "RS256"
        case "EC", "P-256":
            return "ES256"
        case "OKP", "Ed25519":
            return "EdDSA"
        case kind, curve:  # a secret ("oct") above all: who can read the set could sign with it
            raise BadRequestError(
                f"kty {kind!r:.20}, crv {curve!r:.20} isn't for RS256, ES256 or EdDSA"
            )
