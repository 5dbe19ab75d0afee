"""Making the streams, or updating them: the log, and the bucket of revoked tokens.

Only the `admin` user may do that.
"""

from __future__ import annotations

import json
from typing import Any, Final

import structlog
from nats.aio.client import Client

from jarvis_mesh.config.log import LogSettings, differs, stream_config
from jarvis_mesh.config.revoked import bucket_config
from jarvis_mesh.gateway.admin_connection import TIMEOUT, connected_as_admin
from jarvis_mesh.schema.errors import SetupError, UnavailableError
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

_NAME_IN_USE: Final = 10058
_NOT_FOUND: Final = 10059
_NO_CLUSTER_LEADER: Final = 10008

log = structlog.get_logger(__name__)


async def set_up_log(
    admin_url: str, settings: LogSettings, credentials: NatsCredentials = NO_CREDENTIALS
) -> None:
    """Make the log as *settings* say, and the bucket, or update them; return when they are there.

    The connection is closed again at once. Safe when several do so at the same time.

    Args:
        admin_url: One or several URLs separated by commas.
        credentials: Of the user `admin`.

    Raises:
        UnavailableError: NATS can't be reached, doesn't answer, or elects a leader just now.
        SetupError: the server refuses; the message says why. Or a certificate can't be read.
    """
    async with connected_as_admin(
        admin_url, credentials, name="mesh-log-setup", failure="the log can't be made"
    ) as admin:
        # The log last: whoever sees it finds the bucket too.
        await _make_or_update(admin, bucket_config(settings.replicas))
        await _make_or_update(admin, stream_config(settings))


async def _make_or_update(admin: Client, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    answer = await _call(admin, "INFO", name, {})
    if answer.get("error", {}).get("err_code") == _NOT_FOUND:
        answer = await _call(admin, "CREATE", name, wanted)
        if answer.get("error", {}).get("err_code") == _NAME_IN_USE:
            answer = await _call(admin, "INFO", name, {})  # somebody else was faster
    _raise_for_error(name, answer)
    if differs(answer["config"], wanted):
        changed = {**answer["config"], **wanted}
        _raise_for_error(name, await _call(admin, "UPDATE", name, changed))
        log.info("stream updated", stream=name)


async def _call(admin: Client, verb: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
    reply = await admin.request(
        f"$JS.API.STREAM.{verb}.{name}", json.dumps(request).encode(), timeout=TIMEOUT
    )
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def _raise_for_error(name: str, answer: dict[str, Any]) -> None:
    if error := answer.get("error"):
        refusal = f"the stream {name} can't be made: {error.get('description', error)}"
        if error.get("err_code") == _NO_CLUSTER_LEADER:
            raise UnavailableError(refusal)  # as while a cluster starts: it passes
        raise SetupError(refusal)
