"""`POST /v1/events`: publishing without a WebSocket.

Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.http_admission import Admitted, admit
from jarvis_mesh.gateway.http_errors import NO_STORE, STATUS, refusal
from jarvis_mesh.schema.codec import iter_items
from jarvis_mesh.schema.errors import (
    BadRequestError,
    DeadlineError,
    EventError,
    LimitError,
    MeshError,
    TooLargeError,
)
from jarvis_mesh.schema.wire import Error, Publish, decode_json, parse_request

MAX_EVENTS: Final = 1_000
BODY_WITHIN: Final = 60.0
"""Seconds for a body to come whole."""
CBOR_TYPE: Final = "application/cbor"


async def post_events(request: Request, gateway: Gateway) -> Response:
    """Answer `POST /v1/events`, once the log has what it takes.

    One event is answered with `{"id", "seq"}` or an error. A list is answered with a list of
    these, in order; its status is that of the first error.
    """
    try:
        client = await admit(request, gateway)
        content = await _content(request, gateway, client)
        several = content if isinstance(content, list) else [content]
        if len(several) > MAX_EVENTS:
            raise LimitError(f"at most {MAX_EVENTS:,} events at once")
    except MeshError as error:
        return refusal(error, gateway.metrics)
    except ClientDisconnect:
        return Response(status_code=400)  # which nobody reads: the client has gone
    # Tasks begin in order, turns come in order, and so do the publishes.
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_publish(gateway, each, client.grants)) for each in several]
    answers = [each.result() for each in running]
    errors = [answer for answer in answers if isinstance(answer, Error)]
    status = STATUS.get(errors[0].code, 400) if errors else 200
    body = answers if isinstance(content, list) else answers[0]
    return Response(
        msgspec.json.encode(body) + b"\n",
        status,
        media_type="application/json",
        headers=NO_STORE,
    )


async def _publish(gateway: Gateway, event: object, grants: Grants) -> dict[str, Any] | Error:
    await gateway.services.turns.mine(grants.user)  # a thousand at once would hold all others up
    try:
        gateway.services.tokens.recheck(grants)  # a body can take its time to come
        stored = await gateway.services.publishing.publish(_parse(event).event, grants)
    except MeshError as error:
        gateway.metrics.refused(error)
        return Error.of(error)
    return stored._asdict()


def _parse(event: object) -> Publish:
    request = parse_request({"op": "publish", "event": event})
    assert isinstance(request, Publish)  # noqa: S101 - what that op is parsed to
    return request


async def _content(request: Request, gateway: Gateway, client: Admitted) -> object:
    """Return what the body holds.

    Raises:
        TooLargeError: over the limit of a message.
        BusyError: the client has too many connections.
        DeadlineError: it took too long to come.
        BadRequestError: neither JSON nor CBOR.
    """
    body, max_bytes = bytearray(), gateway.settings.message_bytes
    visit = gateway.services.limits.visit(client.address, client.grants.user)
    try:
        async with asyncio.timeout(BODY_WITHIN):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    gateway.metrics.refuse("message_bytes")
                    raise TooLargeError(f"a body has at most {max_bytes:,} bytes")
    except TimeoutError:
        raise DeadlineError(f"the body didn't come within {BODY_WITHIN:g} s") from None
    finally:
        visit.end()
    if request.headers.get("content-type", "").partition(";")[0].strip() != CBOR_TYPE:
        return decode_json(bytes(body))
    try:
        items = list(iter_items(bytes(body)))
    except EventError as error:
        raise BadRequestError(error.message) from None
    if len(items) != 1:
        raise BadRequestError("a body is one event, or one list of events")
    return items[0]
