"""What the URL of a JWK Set looks like."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

_ADVICE: Final = (
    "write https://issuer.example/jwks.json, file:///etc/jarvis-mesh/jwks.json, "
    "or http:// for an issuer on this machine"
)


def check_jwks_url(url: str) -> None:
    """Return if keys may be had from *url*: whoever can change what it says can make tokens.

    Raises:
        ValueError: it is no such URL, or others could answer in the issuer's place.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # a wrong one raises
    except ValueError:
        raise ValueError(f"it is no URL: {_ADVICE}") from None
    match parts.scheme:
        case "https" if host:
            return
        case "file" if not host and parts.path:
            return
        case "http" if _is_loopback(host):
            return
        case "http":
            raise ValueError("keys that come over plain http could be anybody's: use https")
    raise ValueError(_ADVICE)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
