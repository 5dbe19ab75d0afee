"""Errors as HTTP answers.

Source: docs/protocol.md, "HTTP"; RFC 6750, section 3 (WWW-Authenticate); RFC 9110, section 10.2.3
(Retry-After).
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.responses import Response

from jarvis_mesh.gateway.metrics import Metrics
from jarvis_mesh.schema.errors import MeshError, RateLimitedError, UnauthorizedError
from jarvis_mesh.schema.wire import Error

STATUS: Final = {
    "unauthorized": 401,
    "forbidden": 403,
    "too_large": 413,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,
    "timeout": 504,
}
"""HTTP status by error code; 400 for all others."""
NO_STORE: Final = {"Cache-Control": "no-store"}


def advice(error: MeshError) -> dict[str, str]:
    """Return the headers that say what a client may do about *error*."""
    if isinstance(error, UnauthorizedError):
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": "1"} if isinstance(error, RateLimitedError) else {}


def refusal(error: MeshError, metrics: Metrics) -> Response:
    """Return the answer that tells of *error*, which is counted."""
    metrics.refused(error)
    return Response(
        msgspec.json.encode(Error.of(error)) + b"\n",
        STATUS.get(error.code, 400),
        media_type="application/json",
        headers=NO_STORE | advice(error),
    )
