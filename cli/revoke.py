"""`mesh revoke`: takes tokens back before their time, at all gateways."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Final

import nats.errors
import nats.js.errors
import typer
from nats.aio.client import Client

from jarvis_mesh.cli.failures import NATS_ADVICE
from jarvis_mesh.cli.local import nats_url
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.config.nats_conf import ADMIN
from jarvis_mesh.config.revoked import Revocation
from jarvis_mesh.gateway.nats_connection import describe
from jarvis_mesh.schema.errors import SetupError, UnavailableError

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
    asyncio.run(_write(revocation, nats_url(ADMIN, nats)))
    typer.echo(f"revoked: {'user' if token_id is None else 'token'} {user or token_id}")


async def _write(revocation: Revocation, url: str) -> None:
    admin = Client()
    try:
        await admin.connect(url.split(","), name="mesh-revoke", max_reconnect_attempts=1)
        await admin.jetstream(timeout=_WITHIN).publish(revocation.subject, revocation.encode())
    except nats.js.errors.NoStreamResponseError:
        raise UnavailableError(
            "there is no bucket of revocations: start the gateway once with MESH_NATS_ADMIN_URL"
        ) from None
    except (OSError, nats.errors.Error, TimeoutError) as error:
        reason = describe(error, "MESH_NATS_URL or --nats")
        raise UnavailableError(f"nothing was revoked: {reason}; {NATS_ADVICE}") from None
    finally:
        if admin._current_server is not None:  # nats-py fails on one that was never opened
            await admin.close()
