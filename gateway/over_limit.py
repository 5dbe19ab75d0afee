"""What is said to who goes over a limit. It names the limit, and so it is counted."""

from __future__ import annotations

from jarvis_mesh.schema.errors import LimitError, RateLimitedError


class BusyError(RateLimitedError):
    """More at once, or in a time, than one client may have; later it may pass.

    Args:
        limit: Which limit, as it is counted.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


class BeyondError(LimitError):
    """More than a gateway allows at all.

    Args:
        limit: Which limit, as it is counted.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit
