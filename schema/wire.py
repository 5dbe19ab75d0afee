"""The messages of WebSocket protocol v1, as values.

A request is what a client says, a reply or notice what a gateway says. Both are maps with an
`op`; the JSON and the CBOR form of a message are the same map. Only events differ: in JSON a
map with the event in it, in CBOR an array `[seq, body]` or `[seq, body, sub]` whose body is
the NATS message body, untouched.

Source: docs/protocol.md, "WebSocket protocol".
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, TypeAlias, get_args

import cbor2
import msgspec

from jarvis_mesh.schema.errors import BadRequestError, MeshError, UnknownOpError
from jarvis_mesh.schema.event import Metadata, describe, keep_unknown_metadata
from jarvis_mesh.schema.json_value import JSON, MAX_INTEGER
from jarvis_mesh.schema.value_count import check_json_count

PROTOCOL: Final = 1
JSON_SUBPROTOCOL: Final = "mesh.v1.json"
CBOR_SUBPROTOCOL: Final = "mesh.v1.cbor"
SUBPROTOCOLS: Final = (CBOR_SUBPROTOCOL, JSON_SUBPROTOCOL)

MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_ID_BYTES: Final = 64
MAX_SUB_BYTES: Final = 128
MAX_CONFLATE_MS: Final = 60_000
_SERVICE_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

Id: TypeAlias = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | str
"""What a client calls a request; echoed in the answer. Text of at most 64 bytes."""
Sub: TypeAlias = str
"""What a client calls a subscription: 1 to 128 bytes."""


class Message(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, tag_field="op"):
    """A map with an `op`."""


# Client → gateway


class Auth(Message, tag="auth", kw_only=True, frozen=True):
    token: str
    id: Id | None = None

    def __repr__(self) -> str:
        return f"Auth(token=…, id={self.id!r})"  # whoever reads a token can use it


class Subscribe(Message, tag="subscribe", kw_only=True, frozen=True):
    sub: Sub
    channels: list[str]
    since: JSON = None
    """As `cursor.parse_since` reads it."""
    conflate_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONFLATE_MS)] | None = None
    id: Id | None = None


class Unsubscribe(Message, tag="unsubscribe", kw_only=True, frozen=True):
    sub: Sub
    id: Id | None = None


class NewEvent(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a client may say of an event; the gateway adds source, user and timestamp.

    Keys of the metadata that the schema doesn't know are kept; of the event itself, ignored.
    """

    type: str
    payload: JSON
    metadata: Metadata = Metadata()
    id: str | None = None
    """UUIDv7; keep it when publishing the same event again."""


class Publish(Message, tag="publish", kw_only=True, frozen=True):
    event: NewEvent
    id: Id | None = None


class ServiceRequest(Message, tag="request", kw_only=True, frozen=True):
    service: str
    """One token of a NATS subject: 1 to 128 of `A-Za-z0-9_-`; so is the method."""
    method: str
    data: JSON = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 5_000
    id: Id | None = None


class Ping(Message, tag="ping", kw_only=True, frozen=True):
    id: Id | None = None


Request: TypeAlias = Auth | Subscribe | Unsubscribe | Publish | ServiceRequest | Ping
_REQUESTS: Final = {str(each.__struct_config__.tag): each for each in get_args(Request)}

# Gateway → client


class Limits(msgspec.Struct, kw_only=True, frozen=True):
    message_bytes: int = MAX_MESSAGE_BYTES
    subscriptions: int = 100
    channels: int = 100
    """Of one subscription."""


class Welcome(Message, tag="welcome", kw_only=True, frozen=True):
    protocol: int
    connection: str
    cursor: str | None = None
    """Where the log stands; left out before authentication, or while NATS is away."""
    auth: str
    """"none", "required" or "ok"."""
    user: str | None = None
    expires: float | None = None
    """As in `authenticated`, where the token came with the handshake."""
    heartbeat_s: float
    """Something comes at least this often; a client that hears nothing twice as long reconnects."""
    limits: Limits


class Subscribed(Message, tag="subscribed", kw_only=True, frozen=True):
    id: Id | None = None
    sub: str | None = None
    """Left out where there is only one, as over HTTP; so it is in `gap`."""
    filters: list[str]
    cursor: str


class Gap(Message, tag="gap", kw_only=True, frozen=True):
    sub: str | None = None
    from_: int = msgspec.field(name="from")
    to: int | None = None
    reason: str
    """"expired", "epoch", "reset" or "unreadable"."""
    cursor: str
    """Where the feed goes on."""


class Live(Message, tag="live", kw_only=True, frozen=True):
    sub: str | None = None
    """Left out when the whole connection is live again after lagging."""
    cursor: str
    replayed: int | None = None


class Lagging(Message, tag="lagging", kw_only=True, frozen=True):
    behind: int
    """Sequences that the reader is behind."""


class Heartbeat(Message, tag="heartbeat", kw_only=True, frozen=True):
    cursor: str


class Unsubscribed(Message, tag="unsubscribed", kw_only=True, frozen=True):
    id: Id | None = None
    sub: str


class Published(Message, tag="published", kw_only=True, frozen=True):
    id: Id | None = None
    seq: int


class Response(Message, tag="response", kw_only=True, frozen=True):
    id: Id | None = None
    data: JSON
    """What the service answered; `null` too."""


class Authenticated(Message, tag="authenticated", kw_only=True, frozen=True):
    id: Id | None = None
    user: str
    expires: float
    """The token's `exp`, seconds since 1970: until then the connection lives."""


class Pong(Message, tag="pong", kw_only=True, frozen=True):
    id: Id | None = None


class Error(Message, tag="error", kw_only=True, frozen=True):
    id: Id | None = None
    sub: str | None = None
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: MeshError, *, id: Id | None = None, sub: str | None = None) -> Error:
        """Return the message that tells a client of *error*."""
        return cls(
            id=id, sub=sub, code=error.code, message=error.message, retryable=error.retryable
        )


class Closing(Message, tag="closing", kw_only=True, frozen=True):
    reason: str
    retry_ms: int
    """When to come back; spread at random, so that not everybody does at once."""


Notice: TypeAlias = (
    Welcome
    | Subscribed
    | Gap
    | Live
    | Lagging
    | Heartbeat
    | Unsubscribed
    | Published
    | Response
    | Authenticated
    | Pong
    | Error
    | Closing
)
_NOTICES: Final = {str(each.__struct_config__.tag): each for each in get_args(Notice)}


def parse_request(value: object) -> Request:
    """Return the request that a decoded map is.

    Raises:
        UnknownOpError: an `op` that this version doesn't have.
        BadRequestError: no map, or a key that is missing or of the wrong type.
    """
    if not isinstance(value, dict):
        raise BadRequestError("a message is a map with an op")
    op = value.get("op")
    if not isinstance(op, str):
        raise BadRequestError("op: missing, or not text")
    if op not in _REQUESTS:
        raise UnknownOpError(f"unknown op {op[:40]!r}; there are {', '.join(_REQUESTS)}")
    try:
        request: Request = msgspec.convert(value, _REQUESTS[op])
    except msgspec.ValidationError as error:
        raise BadRequestError(f"{op}: {describe(error)}") from None
    if isinstance(request.id, str) and request_id(value) is None:
        raise BadRequestError(f"id: at most {MAX_ID_BYTES} bytes of text, or an integer")
    if isinstance(request, (Subscribe, Unsubscribe)) and request_sub(value) is None:
        raise BadRequestError(f"sub: 1 to {MAX_SUB_BYTES} bytes of text")
    if isinstance(request, ServiceRequest):
        _check_service(request)
    if isinstance(request, Publish):
        return _keep_unknown(value["event"], request)
    return request


def _check_service(request: ServiceRequest) -> None:
    for name, token in (("service", request.service), ("method", request.method)):
        if not _SERVICE_TOKEN.fullmatch(token):
            raise BadRequestError(f"{name}: 1 to 128 of A-Z a-z 0-9 _ -")


def _keep_unknown(event: dict[str, JSON], request: Publish) -> Publish:
    metadata = keep_unknown_metadata(event.get("metadata", {}), request.event.metadata)
    if metadata is request.event.metadata:
        return request
    new = msgspec.structs.replace(request.event, metadata=metadata)
    return msgspec.structs.replace(request, event=new)


def request_id(value: object) -> Id | None:
    """Return the id to echo in the answer to a message of whatever form; `None` without one."""
    match value:
        case {"id": bool()}:
            return None
        case {"id": int() as number} if -MAX_INTEGER <= number <= MAX_INTEGER:
            return number
        case {"id": str() as text} if _fits(text, MAX_ID_BYTES):
            return text
    return None


def request_sub(value: object) -> str | None:
    """Return the subscription that a message of whatever form names; `None` without one."""
    match value:
        case {"sub": str() as sub} if sub and _fits(sub, MAX_SUB_BYTES):
            return sub
    return None


def parse_notice(value: object) -> Notice:
    """Return what a gateway said; keys that this version doesn't know are ignored.

    Raises:
        UnknownOpError: an `op` that this version doesn't have; a client ignores the message.
        BadRequestError: not a message of this protocol.
    """
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise BadRequestError("a gateway's message is a map with an op")
    if value["op"] not in _NOTICES:
        raise UnknownOpError(f"unknown op {value['op'][:40]!r}")
    try:
        notice: Notice = msgspec.convert(value, _NOTICES[value["op"]])
    except msgspec.ValidationError as error:
        raise BadRequestError(f"{value['op']}: {describe(error)}") from None
    return notice


def encode_json(message: Request | Notice) -> bytes:
    """Return *message* as JSON, without a line break."""
    return msgspec.json.encode(message)


def encode_cbor(message: Request | Notice) -> bytes:
    """Return *message* as one CBOR item."""
    return cbor2.dumps(msgspec.to_builtins(message))


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


_decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(float_hook=_float)
"""With its own way to read numbers (0.22) `1e308` takes 9 µs: a message of them 1.6 s."""


def decode_json(line: bytes | str) -> Any:
    """Return what one line of a text message holds.

    Raises:
        BadRequestError: it isn't JSON.
        TooLargeError: it has too many values.
    """
    check_json_count(line)
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        reason = str(error)[:100]
        if "truncated" in reason:  # what msgspec says of both
            reason += ", or a \\u escape is half of a surrogate pair"
        raise BadRequestError(f"not JSON: {reason}") from None


def _fits(text: str, max_bytes: int) -> bool:
    return len(text) <= max_bytes and len(text.encode(errors="replace")) <= max_bytes
