"""Calling services over NATS for clients: `request` in, what the service says out.

Source: docs/protocol.md, "Services".
"""

from __future__ import annotations

from typing import Any, Final

import cbor2
import msgspec

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.inbox import ConnectionBrokeError, Inbox
from jarvis_mesh.schema.codec import iter_items
from jarvis_mesh.schema.errors import (
    DeadlineError,
    EventError,
    InternalError,
    TooLargeError,
    error_from_wire,
)
from jarvis_mesh.schema.json_value import JSON, check_json
from jarvis_mesh.schema.wire import ServiceRequest

PREFIX: Final = "svc."
MAX_REQUEST_BYTES: Final = 1_000_000
"""As much as NATS takes beside its headers."""


class _Failure(msgspec.Struct, frozen=True):
    code: str
    message: str = ""


class _Reply(msgspec.Struct, frozen=True):
    result: Any = None
    error: _Failure | None = None


class ServiceCalls:
    """Calls what listens on `svc.<service>.<method>`."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def call(self, request: ServiceRequest, grants: Grants) -> JSON:
        """Return the service's result. The service is told the user, by the token.

        Raises:
            ForbiddenError: nothing grants it.
            TooLargeError: the data is too large.
            EventError: the data isn't what JSON can say.
            UnavailableError: nobody serves that, or NATS is away.
            DeadlineError: no answer in time; it may have been done.
            MeshError: what the service says is wrong.
        """
        name = f"{request.service}.{request.method}"
        grants.check_request(request.service, request.method)
        check_json(request.data, "data")
        body = cbor2.dumps({"data": request.data, "user": grants.user})
        if len(body) > MAX_REQUEST_BYTES:
            raise TooLargeError(f"data: at most {MAX_REQUEST_BYTES:,} bytes")
        within = request.timeout_ms / 1000
        try:
            answers = await self._inbox.ask(PREFIX + name, body, within=within, by_server=False)
        except ConnectionBrokeError:
            raise DeadlineError(
                f"the connection to NATS broke before {name} answered; it may have been done"
            ) from None
        except DeadlineError:
            raise DeadlineError(
                f"{name} didn't answer within {within:g} s; it may have been done"
            ) from None
        return _result(answers[-1].body, name)


def _result(body: bytes, name: str) -> JSON:
    try:
        (item,) = iter_items(body)
        reply = msgspec.convert(item, _Reply)
        check_json(reply.result, "result")
    except (EventError, TooLargeError, ValueError, msgspec.ValidationError):
        raise InternalError(
            f"{name} answered with something else than a result or an error"
        ) from None
    if reply.error is not None:
        raise error_from_wire(reply.error.code, reply.error.message)
    return reply.result
