"""What the publishers of one family have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar, Self

from jarvis_mesh.publishers.base import CONNECT_TIMEOUT, RETRY_FOR, EventPublisher
from jarvis_mesh.publishers.window import Published
from jarvis_mesh.schema.event import JSON
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials


class FamilyPublisher:
    """A method for every type of one family; each returns once the log has the event.

    They raise what `EventPublisher.publish` raises. Further keywords become further keys of the
    payload, as they are written: `created("a1", name="Ada", maxTokens=9)`.

    Args:
        publisher: What the events go through; whoever made it opens and closes it.
        timeout: Seconds until an event isn't tried any more, at most 100.
    """

    family: ClassVar[str]
    source: ClassVar[str]
    """The NATS user that publishes this family by default."""

    def __init__(self, publisher: EventPublisher, *, timeout: float = RETRY_FOR) -> None:
        self._publisher = publisher
        self._timeout = timeout

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        nats_url: str,
        *,
        credentials: NatsCredentials = NO_CREDENTIALS,
        source: str | None = None,
        timeout: float = RETRY_FOR,  # noqa: ASYNC109 - ends the tries, cancels nothing
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> AsyncIterator[Self]:
        """Yield one on a connection of its own.

        Args:
            nats_url: With the user and password of *source*.
            credentials: Certificates, and an nkey instead of user and password.
            source: The events' source; that of the family when `None`.

        Raises:
            UnavailableError: NATS can't be reached within *connect_timeout* seconds.
            UnauthorizedError, ForbiddenError: NATS refuses the user.
        """
        publisher = EventPublisher(
            source or cls.source,
            nats_url,
            credentials=credentials,
            connect_timeout=connect_timeout,
        )
        async with publisher:
            yield cls(publisher, timeout=timeout)

    async def _publish(
        self, name: str, payload: dict[str, JSON], user: str | None, session: str | None
    ) -> Published:
        return await self._publisher.publish(
            f"{self.family}:{name}", payload, timeout=self._timeout, user=user, session=session
        )
