"""Events of the family `system`: how machines do. They are about this host by default.

`host="other"` as a further keyword makes an event be about another one.
"""

from __future__ import annotations

from typing import ClassVar

from jarvis_mesh.publishers.family import FamilyPublisher
from jarvis_mesh.publishers.window import Published
from jarvis_mesh.schema.event import JSON


class SystemPublisher(FamilyPublisher):
    """A method for every type of `system`."""

    family: ClassVar[str] = "system"
    source: ClassVar[str] = "system-monitor"

    async def status(
        self, status: str, *, user: str | None = None, session: str | None = None, **extra: JSON
    ) -> Published:
        """Say the machine's state, in a word such as `up`."""
        return await self._publish("status", {"status": status, **extra}, user, session)

    async def metrics(
        self, *, user: str | None = None, session: str | None = None, **metrics: JSON
    ) -> Published:
        """Pass on measurements: `cpu={"percent": 3.5}`."""
        return await self._publish("metrics", metrics, user, session)

    async def error(
        self,
        message: str,
        error: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say that something failed: a sentence for people, and the error itself."""
        return await self._publish(
            "error", {"message": message, "error": error, **extra}, user, session
        )

    async def warning(
        self, message: str, *, user: str | None = None, session: str | None = None, **extra: JSON
    ) -> Published:
        """Say what needs attention."""
        return await self._publish("warning", {"message": message, **extra}, user, session)
