"""`EventPublisher`: events in, acknowledgements out.

    async with EventPublisher("agent-service", nats_url) as publisher:
        await publisher.publish("agent:created", {"agentId": "a1"})

`publish` returns when the log has the event. `send` returns as soon as the event is admitted to
a bounded window, with a future for its acknowledgement, so that many can be under way.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self, Unpack

from jarvis_mesh.publishers.delivery import Delivery
from jarvis_mesh.publishers.event_builder import EventBuilder, Filing
from jarvis_mesh.publishers.window import Pending, Published, WindowLimits
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.codec import encode_body
from jarvis_mesh.schema.errors import UnavailableError
from jarvis_mesh.schema.event import JSON
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials
from jarvis_mesh.schema.types import TypeRegistry

RETRY_FOR: Final = 100.0
"""Seconds; JetStream remembers an id for 120, and a try can take some on its way."""
CONNECT_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 5.0


class EventPublisher:
    """Publishes events of one source. Enter and leave it in the same task.

    Args:
        source: The events' source, which is the NATS user's name (but for `admin`).
        nats_url: One or several URLs separated by commas, with user and password.
        credentials: Certificates, and an nkey instead of user and password.
        types: The types that it may publish; the 28 built-in ones when `None`.
        limits: How many events and bytes it keeps that the log hasn't confirmed.
        connect_timeout: Seconds until entering it fails when NATS is away. Afterwards it
            reconnects by itself, for ever.
        close_timeout: Seconds that leaving it waits for acknowledgements.
    """

    def __init__(
        self,
        source: str,
        nats_url: str,
        *,
        credentials: NatsCredentials = NO_CREDENTIALS,
        types: TypeRegistry | None = None,
        clock: Clock | None = None,
        limits: WindowLimits | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        self.source = source
        self.refused = 0
        """Events that `send_nowait` had no room for."""
        self._clock = clock or SystemClock()
        self._builder = EventBuilder(source, types or TypeRegistry(), self._clock)
        self._close_timeout = close_timeout
        self._group: asyncio.TaskGroup | None = None
        self._delivery = Delivery(
            source,
            nats_url,
            credentials=credentials,
            clock=self._clock,
            limits=limits or WindowLimits(),
            connect_timeout=connect_timeout,
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UnavailableError: NATS can't be reached within `connect_timeout`.
            UnauthorizedError, ForbiddenError: NATS refuses the user, or a certificate is refused.
            SetupError: a certificate can't be read.
        """
        group = asyncio.TaskGroup()
        await group.__aenter__()
        await self._delivery.open(group)  # starts no task when it fails
        self._group = group
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        finally:
            if self._group is not None:
                # Not told of the body's exception, which it would wrap into a group.
                await self._group.__aexit__(None, None, None)

    @property
    def is_connected(self) -> bool:
        """Whether NATS can be reached now. The log may be away all the same."""
        return self._delivery.is_connected

    @property
    def unacked(self) -> int:
        """Events that wait for room or for the log's acknowledgement."""
        return len(self._delivery.window)

    @property
    def published(self) -> int:
        """Events that the log has confirmed so far."""
        return self._delivery.published

    @property
    def lost(self) -> int:
        """Events that ended without confirmation; each one's future said why."""
        return self._delivery.lost

    async def publish(
        self,
        event_type: str,
        payload: JSON,
        *,
        timeout: float = RETRY_FOR,  # noqa: ASYNC109 - ends the tries, cancels nothing
        **filing: Unpack[Filing],
    ) -> Published:
        """Return once the log has the event. Cancelling ends the tries; it may be in the log.

        Args:
            timeout: Seconds until it isn't tried any more, at most 100.

        Raises:
            EventError, TooLargeError: no event that the log would take.
            ForbiddenError: the NATS user may not publish with this source or family.
            UnavailableError: NATS or the log was away all the time; nothing was stored.
            OutcomeUnknownError: it was sent, but the answer didn't come.
        """
        pending = self._prepare(event_type, payload, timeout, filing)
        self._delivery.take(pending)
        return await pending.ack

    async def send(
        self,
        event_type: str,
        payload: JSON,
        *,
        timeout: float = RETRY_FOR,  # noqa: ASYNC109 - ends the tries, cancels nothing
        **filing: Unpack[Filing],
    ) -> asyncio.Future[Published]:
        """Return a future for the acknowledgement as soon as there is room for the event.

        It raises what `publish` raises. Nobody needs to wait for it: failures are counted in
        `lost` and logged, too. Events of one task reach the log in the order of the calls, but
        for those under way when another server of a cluster takes the log over.

        Raises:
            EventError, TooLargeError: no event that the log would take.
            UnavailableError: there was no room within *timeout* seconds.
        """
        pending = self._prepare(event_type, payload, timeout, filing)
        pending.admitted = asyncio.get_running_loop().create_future()
        self._delivery.take(pending)
        try:
            await pending.admitted
        except asyncio.CancelledError:
            pending.ack.cancel()
            raise
        return pending.ack

    def send_nowait(
        self,
        event_type: str,
        payload: JSON,
        *,
        timeout: float = RETRY_FOR,
        **filing: Unpack[Filing],
    ) -> asyncio.Future[Published]:
        """Do what `send` does, but raise `UnavailableError` when there is no room now."""
        pending = self._prepare(event_type, payload, timeout, filing)
        if not self.has_room(len(pending.body)):
            self.refused += 1
            raise UnavailableError(f"{self.unacked} events wait for the log: no room for another")
        self._delivery.take(pending)
        return pending.ack

    def has_room(self, size_bytes: int) -> bool:
        """Say whether `send_nowait` would admit a body of *size_bytes* now."""
        return self._delivery.is_open and self._delivery.window.has_room(size_bytes)

    async def wait_for_room(self, size_bytes: int, *, within: float) -> bool:
        """Return whether there is room for a body of *size_bytes*, waiting for it *within* seconds.

        It doesn't wait while NATS is away: room doesn't come then.
        """
        return await self._delivery.wait_for_room(size_bytes, within)

    async def flush(self, *, within: float | None = None) -> bool:
        """Return whether nothing is unacknowledged any more; `None` waits for that."""
        return await self._delivery.flush(within)

    async def close(self) -> None:
        """Wait a while for acknowledgements, say what is left without one, disconnect. Idempotent.

        The futures of what is left raise `OutcomeUnknownError` or `UnavailableError`.
        """
        await self._delivery.close(self._close_timeout)

    def _prepare(self, event_type: str, payload: JSON, timeout: float, filing: Filing) -> Pending:
        if not self._delivery.is_open:
            raise UnavailableError(f"the publisher of {self.source!r} isn't open")
        event = self._builder.build(event_type, payload, filing)
        ack: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        ack.add_done_callback(_look_at)
        return Pending(
            event_id=event.id,
            subject=event.subject,
            body=encode_body(event),
            deadline=self._clock.monotonic() + min(timeout, RETRY_FOR),
            ack=ack,
        )


def _look_at(ack: asyncio.Future[Published]) -> None:
    """Take note of a failure, so that asyncio doesn't report one that nobody waited for."""
    if not ack.cancelled():
        ack.exception()
