"""`mesh token`: a token for development, signed with the gateway's own secret."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from joserfc import jwt
from joserfc.jwk import OctKey

from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.config.units import parse_duration
from jarvis_mesh.gateway.access import grants_of
from jarvis_mesh.gateway.signing_keys import SECRET_ALGORITHM
from jarvis_mesh.schema.errors import SetupError, UnauthorizedError

_ID_BYTES: Final = 12


def token(
    user: Annotated[str, typer.Option(help="Whose token it is.")],
    grant: Annotated[
        list[str] | None,
        typer.Option(help="A channel to watch; repeat it for more.", show_default="user:USER"),
    ] = None,
    publish: Annotated[
        list[str] | None, typer.Option(help="A channel to publish to.", show_default="none")
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="Methods to call, such as terminal.*", show_default="none"),
    ] = None,
    expires: Annotated[str, typer.Option(help="For how long, such as 10m or 30d.")] = "1h",
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; also MESH_CONFIG.")
    ] = None,
) -> None:
    """Make a token for development.

    It is signed with MESH_JWT_SECRET, which the gateway must have too. Its id
    (jti), which mesh revoke takes, goes to stderr.
    """
    set_up_logs()
    settings = Settings.load(config=config)
    if settings.jwt_secret is None:
        raise SetupError(
            "MESH_JWT_SECRET isn't set: make one with `openssl rand -hex 32`, and give it to the "
            "gateway too. With MESH_JWKS_URL the issuer makes the tokens"
        )
    claims = _claims(settings, user, parse_expiry(expires))
    asked = {"subscribe": grant, "publish": publish, "request": request}
    if mesh := {name: texts for name, texts in asked.items() if texts is not None}:
        claims["mesh"] = mesh
    try:
        grants_of(claims)
    except UnauthorizedError as error:
        raise SetupError(f"no gateway would take it: {error.message}") from None
    key = OctKey.import_key(settings.jwt_secret.get_secret_value())
    typer.echo(f"id: {claims['jti']}", err=True)
    typer.echo(jwt.encode({"alg": SECRET_ALGORITHM}, claims, key))


def parse_expiry(text: str) -> float:
    """Return for how many seconds a token lives that is to last *text*.

    Raises:
        SetupError: it's no duration, or none above 0.
    """
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SetupError(f"--expires {text!r}: {error}") from None
    if seconds <= 0:
        raise SetupError(f"--expires {text!r}: the token would be of no use; write 1h, say")
    return seconds


def _claims(settings: Settings, user: str, lifetime: float) -> dict[str, Any]:
    now = time.time()
    claims: dict[str, Any] = {
        "sub": user,
        # To the millisecond, so that a token made right after `mesh revoke --user` counts.
        "iat": round(now, 3),
        "exp": round(now + lifetime, 3),
        "jti": secrets.token_urlsafe(_ID_BYTES),
    }
    if settings.jwt_issuer is not None:
        claims["iss"] = settings.jwt_issuer
    if settings.jwt_audience is not None:
        claims["aud"] = settings.jwt_audience
    return claims
