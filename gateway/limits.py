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
MAX_BUCKETS: Final = 10_000
"""Of addresses and users; when there are more, those that asked for nothing lately are let go."""


class ClientLimits:
    """What all clients of one gateway process have taken."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.by_address: Counter[str] = Counter()
        self.by_user: Counter[str] = Counter()
        self.replays: Counter[str] = Counter()
        self.clock = clock
        self._proxies = Proxies(settings.trusted_proxies)
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

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
        rate, now = self.settings.requests_per_second, self.clock.monotonic()
        if not self._bucket(("requests", address), rate, now).take(1, now):
            raise BusyError("requests", f"at most {rate:g} requests a second from one address")

    def messages_of(self, who: str | None) -> TokenBucket:
        """Return what counts the messages of all connections of *who*, or of one alone."""
        rate, now = self.settings.messages_per_second, self.clock.monotonic()
        if who is None:
            return TokenBucket(rate, rate * BURST, now)
        return self._bucket(("messages", who), rate, now)

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

    def _bucket(self, key: tuple[str, str], rate: float, now: float) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._forget(now)
            bucket = self._buckets[key] = TokenBucket(rate, rate * BURST, now)
        return bucket

    def _forget(self, now: float) -> None:
        full = [key for key, bucket in self._buckets.items() if bucket.is_full(now)]
        for key in full or list(self._buckets)[: MAX_BUCKETS // 2]:
            del self._buckets[key]


class Visit:
    """What one connection has taken. `end` gives it back."""

    __slots__ = ("_address", "_limits", "_messages", "_user", "is_counted")

    def __init__(self, limits: ClientLimits, address: str | None) -> None:
        self.is_counted = False
        """Whether it counts among those of its address."""
        self._limits = limits
        self._address = address
        self._user: str | None = None
        self._messages: TokenBucket | None = None

    @property
    def who(self) -> str | None:
        """The user, or without users the address, with whose other connections it counts."""
        return self._user or self._address

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

    def ask(self, cost: float) -> None:
        """Count what the connection asks for, with all others of its user.

        Without users it is its address that counts, and where that isn't, the connection alone.

        Raises:
            BusyError: it is too much.
        """
        limits, who = self._limits, self.who
        if who is not None:
            bucket = limits.messages_of(who)
        else:
            bucket = self._messages = self._messages or limits.messages_of(None)
        if not bucket.take(cost, limits.clock.monotonic()):
            raise BusyError("messages", "too many messages; see MESH_MESSAGES_PER_SECOND")

    def begin_replay(self) -> Replay | None:
        """Count one more replay; `None` for somebody who isn't counted.

        Raises:
            BusyError: the user, or without users the address, has too many.
        """
        key = self.who
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
