"""Replacing a connection's token before it expires, so that it needn't be made anew."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Final

from jarvis_mesh.client.backoff import pause_before
from jarvis_mesh.client.credentials import Credentials
from jarvis_mesh.client.formats import Item
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import MeshError, error_from_wire
from jarvis_mesh.schema.wire import Auth, Authenticated, Error, Request

EARLIEST: Final = 0.75
LATEST: Final = 0.9
"""Of the time that is left, when a new token is asked for: not by all clients at once."""
MARGIN: Final = 5.0
"""Seconds before the expiry by which it has begun, so that a failure can be mended; less where
the token doesn't live twice as long."""
MIN_PAUSE: Final = 1.0
"""Seconds; doubled for each token in a row that seems to be expired when it comes, as all do
where this machine's clock is ahead of the gateway's."""
MAX_DOUBLINGS: Final = 6
LOOK_AGAIN: Final = 60.0
"""Seconds; a machine that slept, or whose clock was set, notices then."""


def pause_of(left: float) -> float:
    """Return when to renew a token that has *left* to live, both in seconds from now."""
    share = random.uniform(EARLIEST, LATEST)  # noqa: S311 - spreads load, keeps no secret
    return min(left * share, max(left - MARGIN, left / 2))


class Renewal:
    """Keeps one connection's token fresh.

    Args:
        credentials: Where tokens come from.
        clock: When they expire.
        say: Sends a request on this connection.
        report: Is told of every failure; the next try follows.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        say: Callable[[Request], None],
        report: Callable[[MeshError], None],
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._say = say
        self._report = report
        self._numbers = itertools.count(1)
        self._asked: str | None = None
        self._answer: asyncio.Future[Authenticated | Error] | None = None

    async def run(self, expires: float | None) -> None:
        """Replace the token each time before it expires, if it does and there are others.

        Args:
            expires: The first one's end, in seconds since 1970.
        """
        in_a_row = 0
        while expires is not None and self._credentials.can_renew:
            pause = pause_of(expires - self._now())
            in_a_row = 0 if pause >= MIN_PAUSE else min(in_a_row + 1, MAX_DOUBLINGS)
            await self._sleep_until(self._now() + max(pause, MIN_PAUSE * 2**in_a_row))
            expires = await self._renew()

    def receive(self, item: Item) -> bool:
        """Take an answer; say whether *item* is one."""
        match item:
            case Authenticated() | Error() if item.id is not None and item.id == self._asked:
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(item)
                return True
        return False

    async def _renew(self) -> float:
        """Return when the new token expires, however many tries it takes to get there.

        It ends with the connection, which the gateway closes when the old one expires.
        """
        for retry in itertools.count():
            try:
                return await self._try_once()
            except MeshError as error:
                self._report(error)
                await self._clock.sleep(pause_before(retry))
        raise AssertionError("counting has no end")

    async def _try_once(self) -> float:
        token = await self._credentials.token()
        assert token is not None, "what can renew has one"  # noqa: S101
        self._asked = f"auth-{next(self._numbers)}"
        self._answer = asyncio.get_running_loop().create_future()
        self._say(Auth(id=self._asked, token=token))
        answer = await self._answer
        if isinstance(answer, Error):
            raise error_from_wire(answer.code, f"the new token isn't taken: {answer.message}")
        return answer.expires

    async def _sleep_until(self, due: float) -> None:
        while (left := due - self._now()) > 0:
            await self._clock.sleep(min(left, LOOK_AGAIN))

    def _now(self) -> float:
        return self._clock.time_ms() / 1000
