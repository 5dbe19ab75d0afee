"""A connection to NATS as `admin`, for one thing to be done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import nats.errors
from nats.aio.client import Client

from jarvis_mesh.gateway.nats_connection import describe
from jarvis_mesh.schema.errors import UnavailableError
from jarvis_mesh.schema.nats_client import SecureClient, explain_refusal
from jarvis_mesh.schema.nats_credentials import NatsCredentials

TIMEOUT: Final = 10.0
"""Seconds for an answer."""


@asynccontextmanager
async def connected_as_admin(
    url: str, credentials: NatsCredentials, *, name: str, failure: str
) -> AsyncIterator[Client]:
    """Connect to NATS, and close the connection afterwards.

    Args:
        url: One or several URLs separated by commas.
        credentials: Of the user `admin`.
        name: What the connection is called on the server.
        failure: How the error begins when something fails here or within.

    Raises:
        UnavailableError: NATS can't be reached, or doesn't answer.
        SetupError: a certificate can't be read.
    """
    admin = SecureClient(credentials)
    told: list[Exception] = []

    async def tell(error: Exception) -> None:
        told.append(error)

    try:
        await admin.connect(
            url.split(","),
            name=name,
            # nats-py retries even a first connect: 1 is the least it can be told.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # takes fractions
            connect_timeout=int(TIMEOUT),
            error_cb=tell,
            **credentials.options(url),
        )
        yield admin
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise UnavailableError(f"{failure}: {_reason(error, told)}") from None
    finally:
        if admin._current_server is not None:  # a refused one too has a socket to close
            await admin.close()


def _reason(error: Exception, told: list[Exception]) -> str:
    """Return why a connection failed; what it raises is only that no server is left."""
    # After a refusal the server may reset the connection, which would hide the cause.
    errors = told or [error]
    cause = next((each for each in errors if explain_refusal(each)), errors[-1])
    return describe(cause, "MESH_NATS_ADMIN_URL")
