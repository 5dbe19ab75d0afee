"""`mesh token` and `mesh revoke` as commands."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh_command import environment, mesh
from tests.support.tokens import SECRET


async def made(tmp_path: Path, *arguments: str, **env: str) -> dict[str, Any]:
    """Return the claims of the token that the command makes."""
    secured = environment(tmp_path, MESH_JWT_SECRET=SECRET, **env)
    ended = await mesh("token", *arguments, env=secured)
    assert ended.code == 0, ended.stderr
    payload = ended.stdout.decode().strip().split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert f"id: {claims['jti']}" in ended.stderr
    return claims


async def test_a_token_is_for_the_users_own_events_for_an_hour(tmp_path: Path) -> None:
    claims = await made(tmp_path, "--user", "alice")
    assert claims["sub"] == "alice"
    assert "mesh" not in claims
    assert 3500 < claims["exp"] - time.time() <= 3600


async def test_a_token_has_what_it_is_told_to_grant(tmp_path: Path) -> None:
    arguments = ["--grant", "user:alice", "--grant", "shared", "--publish", "all"]
    claims = await made(
        tmp_path,
        *("--user", "alice", *arguments, "--request", "terminal.*", "--expires", "10m"),
        MESH_JWT_ISSUER="us",
        MESH_JWT_AUDIENCE="mesh",
    )
    assert claims["mesh"] == {
        "subscribe": ["user:alice", "shared"],
        "publish": ["all"],
        "request": ["terminal.*"],
    }
    assert (claims["iss"], claims["aud"]) == ("us", "mesh")
    assert claims["exp"] - claims["iat"] == pytest.approx(600)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--user", ""], "sub"),
        (["--user", "x" * 200], "sub"),
        (["--user", "a", "--grant", "topic:x"], "topic:x"),
        (["--user", "a", "--request", "terminal"], "service.method"),
        (["--user", "a", "--expires", "soon"], "--expires"),
        (["--user", "a", "--expires", "0"], "--expires"),
    ],
)
async def test_a_token_that_no_gateway_would_take_isnt_made(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    ended = await mesh("token", *arguments, env=environment(tmp_path, MESH_JWT_SECRET=SECRET))
    assert ended.code == 1
    assert reason in ended.stderr
    assert not ended.stdout


async def test_without_a_secret_it_says_how_to_make_one(tmp_path: Path) -> None:
    ended = await mesh("token", "--user", "alice", env=environment(tmp_path))
    assert ended.code == 1
    assert "openssl rand -hex 32" in ended.stderr
    short = environment(tmp_path, MESH_JWT_SECRET="short")  # noqa: S106 - that is the point
    ended = await mesh("token", "--user", "alice", env=short)
    assert ended.code == 1
    assert "MESH_JWT_SECRET" in ended.stderr
    assert "short" not in ended.stderr


@pytest.mark.parametrize("arguments", [[], ["--user", "a", "--id", "b"]])
async def test_revoking_is_of_one_thing(arguments: list[str], tmp_path: Path) -> None:
    ended = await mesh("revoke", *arguments, env=environment(tmp_path))
    assert ended.code == 1
    assert "one of --user and --id" in ended.stderr


async def test_revoking_without_nats_says_that_nothing_was_revoked(tmp_path: Path) -> None:
    env = environment(tmp_path, MESH_NATS_URL="nats://admin:x@127.0.0.1:9")
    ended = await mesh("revoke", "--user", "alice", env=env)
    assert ended.code == 1
    assert "nothing was revoked" in ended.stderr
