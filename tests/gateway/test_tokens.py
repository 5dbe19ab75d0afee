"""Which tokens count: by signature, key, algorithm, time, issuer and audience."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.access import ANYBODY, Grants
from jarvis_mesh.gateway.inbox import Inbox
from jarvis_mesh.gateway.key_store import KeyStore, UnknownKeyError
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.gateway.revocations import Revocations
from jarvis_mesh.gateway.signing_keys import parse_jwks, secret_keys
from jarvis_mesh.gateway.tokens import Tokens
from jarvis_mesh.schema.errors import UnauthorizedError
from tests.support.clock import ManualClock
from tests.support.tokens import SECRET, Key, sign

NOW = 1_800_000_000
CLAIMS = {"sub": "alice", "exp": NOW + 60}
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
JWKS = {"keys": [key.as_dict(private=False) for key in (RSA, EC, ED)]}


class Issuer:
    """Where keys are fetched; counts how often."""

    def __init__(self, jwks: Any = JWKS) -> None:
        self.jwks = jwks
        self.asked = 0

    async def fetch(self) -> bytes:
        self.asked += 1
        if isinstance(self.jwks, Exception):
            raise self.jwks
        return json.dumps(self.jwks).encode()


def tokens_of(keys: KeyStore, clock: ManualClock, **settings: Any) -> Tokens:
    revocations = Revocations(Inbox(NatsConnection()), lambda: None, clock)
    revocations.are_known = True
    return Tokens(Settings(**{"jwt_secret": SECRET, **settings}), keys, revocations, clock)


def by_secret(**settings: Any) -> Tokens:
    clock = ManualClock(NOW * 1000)
    return tokens_of(KeyStore(secret_keys(SECRET), None, clock), clock, **settings)


async def by_jwks(issuer: Issuer | None = None, clock: ManualClock | None = None) -> Tokens:
    clock = clock or ManualClock(NOW * 1000)
    keys = KeyStore({}, (issuer or Issuer()).fetch, clock)
    await keys.refresh()
    return tokens_of(keys, clock)


def test_a_token_signed_with_the_secret_counts() -> None:
    grants = by_secret().check(sign(CLAIMS | {"jti": "t1", "iat": NOW - 5}))
    assert (grants.user, grants.expires) == ("alice", NOW + 60)
    assert (grants.token_id, grants.issued) == ("t1", NOW - 5)


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
async def test_a_token_signed_by_a_key_of_the_set_counts(key: Key, algorithm: str) -> None:
    tokens = await by_jwks()
    assert tokens.check(sign(CLAIMS, key, algorithm)).user == "alice"


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
async def test_another_key_of_the_same_name_is_refused(key: Key, algorithm: str) -> None:
    forged = {
        "RS256": lambda: RSAKey.generate_key(2048, {"kid": key.kid}),
        "ES256": lambda: ECKey.generate_key("P-256", {"kid": key.kid}),
        "EdDSA": lambda: OKPKey.generate_key("Ed25519", {"kid": key.kid}),
    }[algorithm]()
    with pytest.raises(UnauthorizedError, match="signature"):
        (await by_jwks()).check(sign(CLAIMS, forged, algorithm))


@pytest.mark.parametrize("key", [RSA, EC, ED])
async def test_a_public_key_is_never_taken_for_a_secret(key: Key) -> None:
    """The oldest trick: HS256 over the public key, which everybody has."""
    pem = key.as_pem(private=False)
    for secret in (pem, pem.strip(), json.dumps(key.as_dict(private=False)).encode()):
        header = _encoded({"alg": "HS256", "kid": key.kid})
        signed = f"{header}.{_encoded(CLAIMS)}"
        digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(UnauthorizedError, match="HS256"):
            (await by_jwks()).check(f"{signed}.{_base64(digest)}")


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "HS512", "RS512", "PS256", "", "dir"]
)
async def test_an_algorithm_that_isnt_ours_is_refused(algorithm: str) -> None:
    unsigned = f"{_encoded({'alg': algorithm})}.{_encoded(CLAIMS)}."
    for tokens in (by_secret(), await by_jwks()):
        for token in (unsigned, unsigned + _base64(b"x" * 32)):
            with pytest.raises(UnauthorizedError):
                tokens.check(token)


async def test_a_key_is_for_its_own_algorithm_alone() -> None:
    token = sign(CLAIMS, RSA, "RS256")
    header = _encoded({"alg": "ES256", "kid": "rsa"})
    with pytest.raises(UnknownKeyError):
        (await by_jwks()).check(".".join([header, *token.split(".")[1:]]))


def test_a_secret_alone_accepts_no_other_algorithm() -> None:
    with pytest.raises(UnauthorizedError, match="RS256"):
        by_secret().check(sign(CLAIMS, RSA, "RS256"))


async def test_a_key_in_the_header_is_not_believed() -> None:
    mine = RSAKey.generate_key(2048)
    header = {"alg": "RS256", "jwk": mine.as_dict(private=False)}
    token = sign(CLAIMS, mine, "RS256")
    for names in (header, header | {"jku": "http://127.0.0.1:1/keys"}, header | {"kid": "rsa"}):
        with pytest.raises(UnauthorizedError):
            (await by_jwks()).check(".".join([_encoded(names), *token.split(".")[1:]]))


def test_a_token_of_which_anything_was_changed_is_refused() -> None:
    header, claims, signature = sign(CLAIMS).split(".")
    richer = _encoded(CLAIMS | {"mesh": {"subscribe": ["all"]}})
    for token in (f"{header}.{richer}.{signature}", f"{header}.{claims}.", f"{header}.{claims}"):
        with pytest.raises(UnauthorizedError):
            by_secret().check(token)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "2099-01-01"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": 10**400}, "exp"),
        ({"nbf": NOW + 31}, "isn't valid yet"),
        ({"iat": NOW + 31}, "isn't valid yet"),
        ({"nbf": "x"}, "nbf"),
        ({"sub": ""}, "sub"),
    ],
)
def test_claims_that_dont_hold_are_refused(claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnauthorizedError, match=reason):
        by_secret().check(sign(CLAIMS | claims))


def test_exp_is_required() -> None:
    with pytest.raises(UnauthorizedError, match="exp"):
        by_secret().check(sign({"sub": "alice"}))


def test_an_issuers_clock_may_be_half_a_minute_ahead() -> None:
    assert by_secret().check(sign(CLAIMS | {"nbf": NOW + 29, "iat": NOW + 29})).user == "alice"


def test_issuer_and_audience_count_when_they_are_configured() -> None:
    tokens = by_secret(jwt_issuer="https://issuer.example", jwt_audience="mesh")
    right = {"iss": "https://issuer.example", "aud": "mesh"}
    assert tokens.check(sign(CLAIMS | right)).user == "alice"
    assert tokens.check(sign(CLAIMS | right | {"aud": ["other", "mesh"]})).user == "alice"
    for wrong in ({"iss": "x"}, {"aud": "x"}, {"aud": []}, {"aud": None}, {"aud": {"mesh": 1}}):
        with pytest.raises(UnauthorizedError, match=r"iss|aud"):
            tokens.check(sign(CLAIMS | right | wrong))
    for lacking in ("iss", "aud"):
        with pytest.raises(UnauthorizedError, match=lacking):
            tokens.check(sign({k: v for k, v in (CLAIMS | right).items() if k != lacking}))


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_nonsense_is_refused(token: str) -> None:
    with pytest.raises(UnauthorizedError):
        by_secret().check(token)


@given(st.lists(st.binary(max_size=60).map(lambda data: _base64(data)), min_size=1, max_size=5))
def test_base64_of_nonsense_is_refused(parts: list[str]) -> None:
    with pytest.raises(UnauthorizedError):
        by_secret().check(".".join(parts))


@pytest.mark.parametrize(
    "header", [[], "x", {}, {"alg": ["HS256"]}, {"alg": {}}, {"alg": "HS256", "crit": ["x"]}]
)
def test_a_header_that_is_none_is_refused(header: object) -> None:
    signed = f"{_encoded(header)}.{_encoded(CLAIMS)}"
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    with pytest.raises(UnauthorizedError):
        by_secret().check(f"{signed}.{_base64(digest)}")


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{", b"\xff", b"[" * 5000])
def test_claims_that_are_no_map_are_refused(payload: bytes) -> None:
    signed = f"{_encoded({'alg': 'HS256'})}.{_base64(payload)}"
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    with pytest.raises(UnauthorizedError):
        by_secret().check(f"{signed}.{_base64(digest)}")


def test_a_token_that_is_too_long_isnt_looked_into() -> None:
    with pytest.raises(UnauthorizedError, match="at most"):
        by_secret().check("x" * 20_000)


async def test_without_authentication_everybody_is_let_in_whatever_token_he_has() -> None:
    clock = ManualClock()
    tokens = tokens_of(KeyStore({}, None, clock), clock, jwt_secret=None)
    assert tokens.check_header([]) is ANYBODY
    assert tokens.check_header(["Bearer nonsense"]) is ANYBODY
    assert await tokens.authenticate_request([]) is ANYBODY


async def test_a_request_needs_a_token() -> None:
    with pytest.raises(UnauthorizedError, match="Authorization: Bearer"):
        await by_secret().authenticate_request([])
    granted: Grants = await by_secret().authenticate_request([f"Bearer {sign(CLAIMS)}"])
    assert granted.user == "alice"
    for wrong in (["Bearer"], ["Basic YTpi"], ["Bearer a", "Bearer b"], [sign(CLAIMS)]):
        with pytest.raises(UnauthorizedError):
            await by_secret().authenticate_request(wrong)


# Keys


async def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    issuer, clock = Issuer({"keys": []}), ManualClock(NOW * 1000)
    tokens = await by_jwks(issuer, clock)
    issuer.jwks = JWKS
    await clock.advance(5)
    token = sign({"sub": "alice", "exp": NOW + 600}, EC, "ES256")
    assert (await tokens.authenticate(token)).user == "alice"
    assert issuer.asked == 2


async def test_unknown_keys_dont_make_it_fetch_without_end() -> None:
    issuer, clock = Issuer(), ManualClock(NOW * 1000)
    tokens = await by_jwks(issuer, clock)
    for number in range(100):
        stranger = ECKey.generate_key("P-256", {"kid": f"k{number}"})
        with pytest.raises(UnknownKeyError):
            await tokens.authenticate(sign(CLAIMS | {"exp": NOW + 600}, stranger, "ES256"))
        await clock.advance(0.1)
    assert issuer.asked <= 1 + 10 / 5


async def test_while_nobody_answers_the_last_keys_count(caplog: pytest.LogCaptureFixture) -> None:
    issuer, clock = Issuer(), ManualClock(NOW * 1000)
    tokens = await by_jwks(issuer, clock)
    for broken in (OSError("down"), {"no": "keys"}, {"keys": "x"}, [], ValueError("too large")):
        issuer.jwks = broken
        await clock.advance(6)
        stranger = ECKey.generate_key("P-256", {"kid": "new"})
        with pytest.raises(UnknownKeyError), caplog.at_level(logging.ERROR):
            await tokens.authenticate(sign(CLAIMS | {"exp": NOW + 600}, stranger, "ES256"))
        assert tokens.check(sign(CLAIMS | {"exp": NOW + 600}, RSA, "RS256")).user == "alice"


async def test_a_key_that_was_taken_out_counts_no_more_after_the_next_fetch() -> None:
    issuer, clock = Issuer(), ManualClock(NOW * 1000)
    keys = KeyStore({}, issuer.fetch, clock)
    await keys.refresh()
    issuer.jwks = {"keys": [ED.as_dict(private=False)]}
    await clock.advance(5)
    await keys.refresh()
    assert keys.find("EdDSA", "ed")
    assert keys.find("EdDSA", None), "the only one needs no name"
    with pytest.raises(UnknownKeyError):
        keys.find("RS256", "rsa")


def test_keys_that_are_for_something_else_are_left_out() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "s"}
    curve = ECKey.generate_key("P-384", {"kid": "384"}).as_dict(private=False)
    for_encryption = RSA.as_dict(private=False) | {"use": "enc"}
    other = RSA.as_dict(private=False) | {"alg": "PS256"}
    broken = {"kty": "RSA", "n": "x", "e": "AQAB"}
    unusable = [secret, curve, for_encryption, other, broken, "x", None, {"kty": ["RSA"]}]
    assert parse_jwks(json.dumps({"keys": unusable}).encode()) == {}
    assert "HS256" not in parse_jwks(json.dumps({"keys": [secret, *JWKS["keys"]]}).encode())


def test_a_private_key_in_the_set_is_used_as_a_public_one() -> None:
    found = parse_jwks(json.dumps({"keys": [EC.as_dict(private=True)]}).encode())
    assert not found["ES256"]["ec"].is_private


def test_the_secret_is_one_for_hs256() -> None:
    keys = secret_keys(SECRET)
    assert list(keys) == ["HS256"]
    assert isinstance(keys["HS256"][None], OctKey)


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
