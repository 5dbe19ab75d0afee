"""How often somebody may do something: a bucket of tokens that fills up again by itself."""

from __future__ import annotations


class TokenBucket:
    """Full at first; holds *burst* tokens, and gets *rate* of them a second."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = burst
        self._at = now

    def take(self, count: float, now: float) -> bool:
        """Say whether *count* tokens were there at *now*, monotonic seconds; if so, take them."""
        self._fill(now)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def is_full(self, now: float) -> bool:
        """Say whether nothing has been taken for so long that it might as well be a new one."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
