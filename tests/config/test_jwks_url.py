"""From where keys may come."""

from __future__ import annotations

import pytest

from jarvis_mesh.config.jwks_url import check_jwks_url


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/.well-known/jwks.json",
        "https://issuer.example:8443/keys?x=1",
        "http://localhost:8080/keys",
        "http://127.0.0.1/keys",
        "http://[::1]:80/keys",
        "file:///etc/jarvis-mesh/jwks.json",
    ],
)
def test_keys_come_over_tls_or_from_this_machine(url: str) -> None:
    check_jwks_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://10.0.0.1/keys",
        "http://localhost.evil.example/keys",
        "ftp://issuer.example/keys",
        "data:application/json,{}",
        "file://issuer.example/keys",
        "file:",
        "https:///keys",
        "https://issuer.example:x/",
        "/etc/jwks.json",
        "",
    ],
)
def test_keys_that_could_be_anybodys_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        check_jwks_url(url)
