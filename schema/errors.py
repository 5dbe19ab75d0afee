"""Every error of jarvis-mesh: one tree, each with the wire's word for it.

    MeshError                       internal
    ├── BadRequestError             bad_request
    │   ├── EventError              bad_request
    │   ├── UnknownOpError          unknown_op
    │   ├── ChannelError            bad_channel
    │   ├── CursorError             bad_cursor
    │   ├── DuplicateSubscriptionError   duplicate_subscription
    │   ├── UnknownSubscriptionError     unknown_subscription
    │   ├── LimitError              limit_exceeded
    │   └── TooLargeError           too_large
    ├── UnauthorizedError           unauthorized
    ├── ForbiddenError              forbidden
    ├── RateLimitedError            rate_limited   (retryable)
    ├── UnavailableError            unavailable    (retryable)
    ├── DeadlineError               timeout        (retryable)
    │   └── OutcomeUnknownError     timeout        (retryable with the same event id)
    ├── InternalError               internal       (retryable)
    └── SetupError                  internal       (a program can't start as it was told to)

Source: docs/protocol.md, "Errors".
"""

from __future__ import annotations

from typing import ClassVar


class MeshError(Exception):
    """The root: what was wrong and what to do, in one sentence a user can act on."""

    code: ClassVar[str] = "internal"
    """The word for it on the wire."""
    retryable: ClassVar[bool] = False
    """Whether the same request can succeed later without being changed."""

    @property
    def message(self) -> str:
        """The sentence alone."""
        return str(self.args[0]) if self.args else self.code


class BadRequestError(MeshError):
    """The request has the wrong form; sending it again changes nothing."""

    code = "bad_request"


class EventError(BadRequestError):
    """An event, or a part of one, isn't what the schema says."""


class UnknownOpError(BadRequestError):
    """The message names an operation that this protocol version doesn't have."""

    code = "unknown_op"


class ChannelError(BadRequestError):
    """A channel doesn't parse."""

    code = "bad_channel"


class CursorError(BadRequestError):
    """A cursor or a `since` doesn't parse."""

    code = "bad_cursor"


class DuplicateSubscriptionError(BadRequestError):
    """The connection has a subscription of that name already."""

    code = "duplicate_subscription"


class UnknownSubscriptionError(BadRequestError):
    """The connection has no subscription of that name."""

    code = "unknown_subscription"


class LimitError(BadRequestError):
    """More of something than the gateway allows: the message names the limit."""

    code = "limit_exceeded"


class TooLargeError(BadRequestError):
    """A message, an event or a body has too many bytes."""

    code = "too_large"


class UnauthorizedError(MeshError):
    """No valid token."""

    code = "unauthorized"


class ForbiddenError(MeshError):
    """The user, or the NATS user, may not do that."""

    code = "forbidden"


class RateLimitedError(MeshError):
    """Too much in too short a time."""

    code = "rate_limited"
    retryable = True


class UnavailableError(MeshError):
    """NATS, the log or a service can't be reached now; nothing was stored."""

    code = "unavailable"
    retryable = True


class DeadlineError(MeshError):
    """No answer came in time."""

    code = "timeout"
    retryable = True


class OutcomeUnknownError(DeadlineError):
    """Something was sent, but no answer came: it may or may not have been done.

    Publishing an event again *with the same id* within two minutes of the first try can't
    store it twice. A request has no such id: asking again may do it twice.
    """


class InternalError(MeshError):
    """Our fault; the log of the gateway has the details."""

    code = "internal"
    retryable = True


class SetupError(MeshError):
    """A program can't start as it was told to: a setting, a file, a port, a version."""


_BY_CODE: dict[str, type[MeshError]] = {
    error.code: error
    for error in (
        BadRequestError,
        UnknownOpError,
        ChannelError,
        CursorError,
        DuplicateSubscriptionError,
        UnknownSubscriptionError,
        LimitError,
        TooLargeError,
        UnauthorizedError,
        ForbiddenError,
        RateLimitedError,
        UnavailableError,
        DeadlineError,
        InternalError,
    )
}


def error_from_wire(code: str, message: str) -> MeshError:
    """Return the error that *code* names; one that isn't known stays in the message's text."""
    known = _BY_CODE.get(code)
    return MeshError(f"{code}: {message}") if known is None else known(message)
