"""Getting encoded events into the log, whatever NATS does in between.

The window (window.py) decides what is due; here are the connection, which is replaced when it
is lost, and the clock. Three tasks do it from `open` to `close`: one sends what is due, one
keeps the connection, one keeps time.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

import nats.errors
import structlog

from jarvis_mesh.publishers.answers import Refused, parse_answer
from jarvis_mesh.publishers.nats_link import NatsLink
from jarvis_mesh.publishers.window import Pending, Published, Window, WindowLimits
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import (
    BadRequestError,
    ForbiddenError,
    MeshError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
)
from jarvis_mesh.schema.nats_credentials import NatsCredentials

TICK: Final = 0.1
"""Seconds between looks at deadlines, while there are events that have one."""
_RECONNECT_FIRST: Final = 0.05
_RECONNECT_MOST: Final = 1.0

log = structlog.get_logger(__name__)


class Delivery:
    """Takes events of one source and settles each one's future.

    Args:
        connect_timeout: Seconds for one attempt to connect.
    """

    def __init__(
        self,
        source: str,
        nats_url: str,
        *,
        credentials: NatsCredentials,
        clock: Clock,
        limits: WindowLimits,
        connect_timeout: float,
    ) -> None:
        self.published = 0
        self.lost = 0
        self.is_open = False
        self.window = Window(limits)
        self._source = source
        self._url = nats_url
        self._credentials = credentials
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._link = self._new_link()
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._busy = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether NATS can be reached now."""
        return self._link.is_up

    async def open(self, group: asyncio.TaskGroup) -> None:
        """Connect, and start the tasks in *group*.

        Raises:
            UnavailableError: NATS can't be reached in time.
            UnauthorizedError, ForbiddenError: NATS refuses the user.
        """
        await self._link.open(self._connect_timeout)
        self._tasks = [
            group.create_task(work)
            for work in (self._send_what_is_due(), self._stay_connected(), self._keep_time())
        ]
        self.is_open = True

    def take(self, pending: Pending) -> None:
        """Admit an event, or let it wait for room; its futures say how it went."""
        self.window.offer(pending)
        self._wake.set()
        self._busy.set()

    async def wait_for_room(self, size_bytes: int, within: float) -> bool:
        """Return whether there is room, waiting at most *within* seconds, not while away."""
        deadline = self._clock.monotonic() + within
        while not self.window.has_room(size_bytes):
            if not self.is_connected or self._clock.monotonic() >= deadline:
                return False
            await self._changed.wait()
        return True

    async def flush(self, within: float | None) -> bool:
        """Return whether everything was settled *within* seconds; `None` waits for it."""
        deadline = None if within is None else self._clock.monotonic() + within
        while len(self.window):
            if deadline is not None and self._clock.monotonic() >= deadline:
                return False
            await self._changed.wait()
        return True

    async def close(self, within: float) -> None:
        """Flush for at most *within* seconds, fail what is left, disconnect. Idempotent."""
        try:
            if self.is_open and not await self.flush(within):
                log.warning("closed with unacked events", source=self._source, n=len(self.window))
        finally:
            self.is_open = False
            for task in self._tasks:
                task.cancel()
            for pending in self.window.clear():
                self._fail(pending, _reason(pending, "the publisher was closed"))
            self._changed.set()
            await self._link.close()

    def _fail(self, pending: Pending, error: MeshError) -> None:
        self.window.remove(pending)
        for future in (pending.admitted, pending.ack):
            if future is not None and not future.done():
                future.set_exception(error)
        self.lost += 1
        log.warning("event lost", source=self._source, id=pending.event_id, reason=error.message)

    def _take_answer(self, token: str, headers: bytes, body: bytes) -> None:
        answer = parse_answer(headers, body)
        if isinstance(answer, Refused):
            pending = self.window.refuse(
                token, answer.reason, self._clock.monotonic(), undecided=answer.undecided
            )
            if pending is not None and answer.final:
                self._fail(pending, BadRequestError(f"the log refuses: {answer.reason}"))
        elif pending := self.window.settle(token):
            self.published += 1
            if not pending.ack.done():
                pending.ack.set_result(Published(pending.event_id, answer.seq))
        self._wake.set()

    def _refuse_subject(self, subject: str) -> None:
        for pending in self.window.on_subject(subject):
            reason = (
                f"the NATS user {self._link.user!r} may not publish as source {self._source!r} "
                f"on {pending.subject}"
            )
            self._fail(pending, ForbiddenError(reason))
        self._wake.set()

    async def _send_what_is_due(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._link.is_up:
                await self._send_all(self._link)
            self._changed.set()
            self._changed = asyncio.Event()

    async def _send_all(self, link: NatsLink) -> None:
        while self.is_open and (pending := self.window.next_due(self._clock.monotonic())):
            try:
                await link.send(pending)
            except nats.errors.MaxPayloadError:
                size = len(pending.body)
                self._fail(pending, TooLargeError(f"{size:,} bytes are more than NATS takes"))
            except (OSError, nats.errors.Error) as error:
                log.debug("not sent", source=self._source, error=repr(error))
                return  # the connection is lost: `_stay_connected` goes on from here

    async def _stay_connected(self) -> None:
        while self.is_open:  # nats-py can swallow the cancellation that ends this
            await self._link.lost.wait()
            log.warning("NATS lost", source=self._source, unacked=len(self.window))
            self._wake.set()  # who waits for room must know
            await self._link.close()
            await self._reconnect()
            self.window.rewind(self._clock.monotonic())
            log.info("NATS is back", source=self._source, unacked=len(self.window))
            self._wake.set()

    async def _reconnect(self) -> None:
        """Return with a new connection, however long that takes."""
        pause = _RECONNECT_FIRST
        while self.is_open:
            link = self._new_link()
            try:
                await link.open(self._connect_timeout)
            except MeshError as error:
                log.debug("not connected", source=self._source, reason=error.message)
            else:
                self._link = link
                return
            # At random, so that a hundred publishers don't come back in step.
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _RECONNECT_MOST)

    async def _keep_time(self) -> None:
        while True:
            await self._busy.wait()
            if not len(self.window):
                self._busy.clear()
                continue
            await self._clock.sleep(TICK)
            for pending in self.window.expire(self._clock.monotonic()):
                self._fail(pending, _reason(pending, "the time was over"))
            self._wake.set()

    def _new_link(self) -> NatsLink:
        return NatsLink(
            self._url,
            self._source,
            self._take_answer,
            self._refuse_subject,
            credentials=self._credentials,
        )


def _reason(pending: Pending, why: str) -> MeshError:
    because = f": {pending.refusal}" if pending.refusal else ""
    if pending.unanswered:
        return OutcomeUnknownError(
            f"event {pending.event_id} was sent, but {why} before the log answered{because}; "
            "publish it again with the same id, or look into the log"
        )
    return UnavailableError(
        f"event {pending.event_id} isn't in the log: {why} before the log took it{because}"
    )
