"""`mesh revoke`: takes tokens back before their time, at all gateways."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Final

import msgspec
import typer
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError, NotFoundError

from jarvis_mesh.cli.failures import NATS_ADVICE, advising
from jarvis_mesh.cli.local import admin_access
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.config.revoked import STREAM, Revocation, decode_revocation
from jarvis_mesh.gateway.admin_connection import connected_as_admin
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NatsCredentials

_WITHIN: Final = 5.0


def revoke(
    user: Annotated[
        str | None, typer.Option(help="All that this user was issued up to now.")
    ] = None,
    token_id: Annotated[
        str | None, typer.Option("--id", help="The one token with this id (jti).")
    ] = None,
    nats: Annotated[
        str | None, typer.Option(metavar="URL", help="NATS, with user and password.")
    ] = None,
) -> None:
    """Take tokens back before their time.

    Within two seconds every gateway closes the connections that have one. A
    user's later tokens count.
    """
    set_up_logs()
    if (user is None) == (token_id is None):
        raise SetupError("name one of --user and --id")
    revocation = Revocation(user=user, before=time.time(), id=token_id)
    with advising(NATS_ADVICE):
        asyncio.run(_write(revocation, *admin_access(nats)))
    typer.echo(f"revoked: {'user' if token_id is None else 'token'} {user or token_id}")


async def _latest(stream: JetStreamContext, revocation: Revocation) -> Revocation:
    """Return *revocation*, or of the same user the one there is, if that takes back more.

    It may have been written where the clock is ahead.
    """
    try:
        last = await stream.get_last_msg(STREAM, revocation.subject)
        before = decode_revocation(last.data or b"").before
    except (NotFoundError, msgspec.DecodeError):
        return revocation  # there is none, or none that counts
    return msgspec.structs.replace(revocation, before=max(before, revocation.before))


async def _write(revocation: Revocation, url: str, credentials: NatsCredentials) -> None:
    async with connected_as_admin(
        url, credentials, name="mesh-revoke", failure="nothing was revoked"
    ) as admin:
        try:
            stream = admin.jetstream(timeout=_WITHIN)
            written = await _latest(stream, revocation)
            await stream.publish(written.subject, written.encode())
        except NoStreamResponseError:
            raise SetupError(
                "there is no bucket of revocations: start a gateway with MESH_NATS_ADMIN_URL once"
            ) from None
