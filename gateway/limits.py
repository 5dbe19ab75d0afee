"""How much of a gateway one client may have: all that is counted by address or by user.

A limit is refused with words that name it, and counted under its name. What a client has taken
is in its `Visit`, and is given back when that ends, however it ends.

Source: docs/operations.md, "Limits".
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from typing import Final

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.addresses import Proxies, limit_key
from jarvis_mesh.gateway.over_limit import BusyError
from jarvis_mesh.gateway.rates import TokenBucket
from jarvis_mesh.schema.clock import Clock

BURST: Final = 10.0
"""Seconds' worth of a rate that may come at once."""
MAX_ADDRESSES: Final = 10_000
"""Addresses whose requests are remembered; then those that asked for nothing lately are not."""


class ClientLimits:
    """What all clients of one gateway process have taken."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.by_address: Counter[str] = Counter()
        self.by_user: Counter[str] = Counter()
        self.replays: Counter[str] = Counter()
        self._clock = clock
        self._proxies = Proxies(settings.trusted_proxies)
        self._buckets: dict[str, TokenBucket] = {}

    def address_of(self, peer: str | None, forwarded_for: Sequence[str]) -> str | None:
        """Return as what a client is counted by its address; `None` if it isn't."""
        if peer is None:
            return None
        address = self._proxies.client_address(peer, forwarded_for)
        if not self.settings.limit_loopback and _is_loopback(address):
            return None
        return limit_key(address)

    def knock(self, address: str | None) -> None:
        """Count a handshake or a request.

        Raises:
            BusyError: too many in too short a time from there.
        """
        if address is None:
            return
        rate, now = self.settings.requests_per_second, self._clock.monotonic()
        bucket = self._buckets.get(address)
        if bucket is None:
            if len(self._buckets) >= MAX_ADDRESSES:
                self._forget(now)
            bucket = self._buckets[address] = TokenBucket(rate, rate * BURST, now)
        if not bucket.take(1, now):
            raise BusyError("requests", f"at most {rate:g} requests a second from one address")

    def visit(self, address: str | None, user: str | None) -> Visit:
        """Count one more connection.

        Raises:
            BusyError: there are too many of that address or user.
        """
        most = self.settings.max_connections_per_address
        if address is not None and self.by_address[address] >= most:
            raise BusyError("connections_address", f"at most {most} connections from one address")
        visit = Visit(self, address)
        visit.identify(user)
        if address is not None:
            self.by_address[address] += 1
            visit.is_counted = True
        return visit

    def _forget(self, now: float) -> None:
        full = [key for key, bucket in self._buckets.items() if bucket.is_full(now)]
        for key in full or list(self._buckets)[: MAX_ADDRESSES // 2]:
            del self._buckets[key]


class Visit:
    """What one connection has taken. `end` gives it back."""

    __slots__ = ("_address", "_limits", "_user", "is_counted")

    def __init__(self, limits: ClientLimits, address: str | None) -> None:
        self.is_counted = False
        """Whether it counts among those of its address."""
        self._limits = limits
        self._address = address
        self._user: str | None = None

    def identify(self, user: str | None) -> None:
        """Count the connection among those of *user*, if it isn't yet.

        Raises:
            BusyError: there are too many.
        """
        if user is None or self._user is not None:
            return
        most = self._limits.settings.max_connections_per_user
        if self._limits.by_user[user] >= most:
            raise BusyError("connections_user", f"at most {most} connections of one user")
        self._limits.by_user[user] += 1
        self._user = user

    def begin_replay(self) -> Replay | None:
        """Count one more replay; `None` for somebody who isn't counted.

        Raises:
            BusyError: the user, or without users the address, has too many.
        """
        key = self._user or self._address
        if key is None:
            return None
        replays, most = self._limits.replays, self._limits.settings.max_replays
        if replays[key] >= most:
            raise BusyError("replays", f"at most {most} replays at once")
        return Replay(replays, key)

    def end(self) -> None:
        """Give back what was taken. Idempotent."""
        if self.is_counted and self._address is not None:
            _decrease(self._limits.by_address, self._address)
        if self._user is not None:
            _decrease(self._limits.by_user, self._user)
        self.is_counted = False
        self._user = None


class Replay:
    """One that is counted, until `end`."""

    __slots__ = ("_key", "_replays")

    def __init__(self, replays: Counter[str], key: str) -> None:
        self._replays: Counter[str] | None = replays
        self._key = key
        replays[key] += 1

    def end(self) -> None:
        """Count it no more. Idempotent."""
        if self._replays is not None:
            _decrease(self._replays, self._key)
            self._replays = None


def _decrease(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]  # strangers' addresses would pile up


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a Unix socket's name
