"""How long to wait before the next try."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = 0.3
"""Seconds, at most, before the first try again."""
MOST: Final = 20.0
"""Seconds, at most, before any other."""


def pause_before(retry: int) -> float:
    """Return the seconds to wait before the *retry*-th try again, counted from 0.

    "Full jitter": evenly anything up to a bound that doubles, so that the clients of a gateway
    that went away don't come back all at once.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    bound = min(MOST, FIRST * 2 ** min(retry, 16))
    return random.uniform(0, bound)  # noqa: S311 - spreads load, keeps no secret
