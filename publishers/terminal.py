"""Events of the family `terminal`, for programs with terminals of their own.

`TerminalService` (terminal_service.py) runs commands in terminals and publishes them by itself.
"""

from __future__ import annotations

from typing import ClassVar

from jarvis_mesh.publishers.family import FamilyPublisher
from jarvis_mesh.publishers.window import Published
from jarvis_mesh.schema.event import JSON


class TerminalPublisher(FamilyPublisher):
    """A method for every type of `terminal`."""

    family: ClassVar[str] = "terminal"
    source: ClassVar[str] = "terminal-service"

    async def created(
        self,
        terminal_id: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say that there is a terminal; `columns=…, rows=…` say its size."""
        return await self._publish("created", {"terminalId": terminal_id, **extra}, user, session)

    async def closed(
        self,
        terminal_id: str,
        *,
        exit_code: int | None = None,
        signal: str | None = None,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say that a terminal's program ended: with a code, or by a signal such as `SIGKILL`."""
        how = {"exitCode": exit_code, "signal": signal}
        known = {key: value for key, value in how.items() if value is not None}
        payload = {"terminalId": terminal_id, **known, **extra}
        return await self._publish("closed", payload, user, session)

    async def output(
        self,
        terminal_id: str,
        output: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Pass on what a terminal shows; `data=…` is base64 of its bytes if they aren't UTF-8."""
        payload = {"terminalId": terminal_id, "output": output, **extra}
        return await self._publish("output", payload, user, session)

    async def input(
        self,
        terminal_id: str,
        text: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Pass on what was typed. Never what was typed while the echo was off: a password."""
        payload = {"terminalId": terminal_id, "input": text, **extra}
        return await self._publish("input", payload, user, session)

    async def error(
        self,
        terminal_id: str,
        error: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say what went wrong with a terminal."""
        payload = {"terminalId": terminal_id, "error": error, **extra}
        return await self._publish("error", payload, user, session)
