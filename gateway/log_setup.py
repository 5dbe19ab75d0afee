"""Making the stream EVENTS, or updating it: what only the `admin` user may do."""

from __future__ import annotations

import json
from typing import Any, Final

import nats
import nats.errors
import structlog
from nats.aio.client import Client

from jarvis_mesh.config.log import STREAM, LogSettings, differs, stream_config
from jarvis_mesh.gateway.nats_connection import describe
from jarvis_mesh.schema.errors import SetupError, UnavailableError

_TIMEOUT: Final = 10.0
_NAME_IN_USE: Final = 10058
_NOT_FOUND: Final = 10059
_NO_CLUSTER_LEADER: Final = 10008

log = structlog.get_logger(__name__)


async def set_up_log(admin_url: str, settings: LogSettings) -> None:
    """Make the stream as *settings* say, or update it; return when it is there.

    The connection is closed again at once. Safe when several do so at the same time.

    Args:
        admin_url: One or several URLs separated by commas.

    Raises:
        UnavailableError: NATS can't be reached, doesn't answer, or elects a leader just now.
        SetupError: the server refuses; the message says why.
    """
    admin = Client()
    told: list[Exception] = []

    async def tell(error: Exception) -> None:
        told.append(error)

    try:
        await admin.connect(
            admin_url.split(","),
            name="mesh-log-setup",
            # nats-py retries even a first connect: 1 is the least it can be told.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # takes fractions
            connect_timeout=int(_TIMEOUT),
            error_cb=tell,
        )
        await _make_or_update(admin, stream_config(settings))
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise UnavailableError(f"the log can't be made: {_reason(error, told)}") from None
    finally:
        if admin._current_server is not None:  # a refused one too has a socket to close
            await admin.close()


async def _make_or_update(admin: Client, wanted: dict[str, Any]) -> None:
    answer = await _call(admin, "INFO", {})
    if answer.get("error", {}).get("err_code") == _NOT_FOUND:
        answer = await _call(admin, "CREATE", wanted)
        if answer.get("error", {}).get("err_code") == _NAME_IN_USE:
            answer = await _call(admin, "INFO", {})  # somebody else was faster
    _raise_for_error(answer)
    if differs(answer["config"], wanted):
        _raise_for_error(await _call(admin, "UPDATE", {**answer["config"], **wanted}))
        log.info("log updated", stream=STREAM)


async def _call(admin: Client, verb: str, request: dict[str, Any]) -> dict[str, Any]:
    reply = await admin.request(
        f"$JS.API.STREAM.{verb}.{STREAM}", json.dumps(request).encode(), timeout=_TIMEOUT
    )
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def _raise_for_error(answer: dict[str, Any]) -> None:
    if error := answer.get("error"):
        refusal = f"the log {STREAM} can't be made: {error.get('description', error)}"
        if error.get("err_code") == _NO_CLUSTER_LEADER:
            raise UnavailableError(refusal)  # as while a cluster starts: it passes
        raise SetupError(refusal)


def _reason(error: Exception, told: list[Exception]) -> str:
    """Return why a connection failed; what it raises is only that no server is left."""
    reasons = [describe(each, "MESH_NATS_ADMIN_URL") for each in told or [error]]
    # After a refusal the server may reset the connection, which would hide the cause.
    return next((reason for reason in reasons if "refuses" in reason), reasons[-1])
