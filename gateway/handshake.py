"""The opening handshake of a WebSocket: what is answered to whom.

Source: RFC 6455, section 4.2.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from jarvis_mesh.gateway.access import Grants
from jarvis_mesh.gateway.formats import SOCKET_FORMATS, Cbor, Json, choose_format
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.http_errors import STATUS, advice
from jarvis_mesh.gateway.key_store import UnknownKeyError
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.gateway.sockets import UpgradeRequest
from jarvis_mesh.schema.errors import MeshError

PATH: Final = "/v1/ws"
SILENT: Final = logging.getLogger("jarvis_mesh.websockets")
"""What clients do wrong is told to them, not to the operator."""
SILENT.disabled = True
_JUDGE: Final = ServerProtocol(logger=SILENT)
"""Knows what can be wrong with a handshake, and how to say it. What it keeps, nobody reads."""
MAX_EARLY_BYTES: Final = 4096
"""What a client may say before it has the answer. Once it is open, as much is read at a time."""
_KEY_CHARACTERS: Final = 24
"""Of 16 bytes in base64."""

Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a handshake, and if that is an acceptance, how to serve the client."""

    response: bytes
    form: Json | Cbor | None = None
    grants: Grants | None = None
    """Without authentication everything; `None` if the client has to authenticate first."""
    visit: Visit | None = None
    """What the client has taken of what is limited; there is one if it is accepted."""


def answer(request: UpgradeRequest, gateway: Gateway) -> Answer:
    """Return the answer to *request*.

    Raises:
        UnknownKeyError: its token may be signed by a new key: fetch that, and ask again.
    """
    fields = _fields_of(request)
    reason = gateway.guard.refusal(fields["host"], fields["origin"])
    if reason is not None:
        return _refuse(HTTPStatus.FORBIDDEN, reason)
    if request.path != PATH:
        return _refuse(HTTPStatus.NOT_FOUND, f"The WebSocket is at {PATH}.")
    names = (name.strip() for text in fields["sec-websocket-protocol"] for name in text.split(","))
    offered = [name for name in names if name]
    form = choose_format(offered)
    if gateway.is_draining or form is None:
        return _refuse(*refusal(gateway))
    if len(request.early) > MAX_EARLY_BYTES:
        return _refuse(HTTPStatus.BAD_REQUEST, "Wait for the answer before you say so much.")
    if not _is_in_order(request, fields):
        judged = _judge(request)
        if judged.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return Answer(judged.serialize())
    limits = gateway.services.limits
    address = limits.address_of(request.peer, fields["x-forwarded-for"])
    try:
        limits.knock(address)
        grants = gateway.services.tokens.check_header(fields["authorization"])
        visit = limits.visit(address, None if grants is None else grants.user)
    except UnknownKeyError:
        raise
    except MeshError as error:
        return refused(error, gateway)
    response = _accept(fields["sec-websocket-key"][0], form.subprotocol if offered else "")
    return Answer(response, form, grants, visit)


def refused(error: MeshError, gateway: Gateway) -> Answer:
    """Return the answer to a request whose token isn't taken, or that goes over a limit."""
    gateway.metrics.refused(error)
    status = HTTPStatus(STATUS[error.code])
    response = _JUDGE.reject(status, f"{error.message}\n")
    response.headers.update(advice(error))
    return Answer(response.serialize())


def refusal(gateway: Gateway) -> tuple[HTTPStatus, str]:
    """Return what is said to a client while *gateway* drains, or that offers no form of ours."""
    if gateway.is_draining:
        return HTTPStatus.SERVICE_UNAVAILABLE, "This gateway is shutting down; try another one."
    known = " and ".join(each.subprotocol for each in SOCKET_FORMATS)
    return HTTPStatus.BAD_REQUEST, f"Unknown subprotocol; there are {known}."


def _fields_of(request: UpgradeRequest) -> Fields:
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in request.headers:
        fields[name.decode("latin-1")].append(value.decode("latin-1"))
    return fields


def _is_in_order(request: UpgradeRequest, fields: Fields) -> bool:
    """Say whether the request is as nearly all are: asking what could be wrong takes 40 µs.

    uvicorn has looked at Upgrade and Connection.
    """
    keys = fields["sec-websocket-key"]
    return (
        request.method == "GET"
        and request.protocol == "HTTP/1.1"
        and fields["sec-websocket-version"] == ["13"]
        and len(keys) == 1
        and len(keys[0]) == _KEY_CHARACTERS
        and keys[0].isascii()
        and keys[0].endswith("==")
        and keys[0][:-2].replace("+", "0").replace("/", "0").isalnum()
    )


def _judge(request: UpgradeRequest) -> Response:
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
    return _JUDGE.accept(Request(PATH, Headers(pairs), request.method, request.protocol))


def _accept(key: str, subprotocol: str) -> bytes:
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n{chosen}\r\n"
    ).encode()


def _refuse(status: HTTPStatus, text: str) -> Answer:
    return Answer(_JUDGE.reject(status, f"{text}\n").serialize())
