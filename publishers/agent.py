"""Events of the family `agent`: who works here, on what, and what they say.

async with AgentPublisher.connect(nats_url) as agents:
    await agents.created("a1", name="Ada", session="s-42")
    await agents.task_started("a1", "t1", "mend the build", session="s-42")
"""

from __future__ import annotations

from typing import ClassVar

from jarvis_mesh.publishers.family import FamilyPublisher
from jarvis_mesh.publishers.window import Published
from jarvis_mesh.schema.event import JSON


class AgentPublisher(FamilyPublisher):
    """A method for every type of `agent`."""

    family: ClassVar[str] = "agent"
    source: ClassVar[str] = "agent-service"

    async def created(
        self, agent_id: str, *, user: str | None = None, session: str | None = None, **extra: JSON
    ) -> Published:
        """Say that there is an agent."""
        return await self._publish("created", {"agentId": agent_id, **extra}, user, session)

    async def updated(
        self, agent_id: str, *, user: str | None = None, session: str | None = None, **extra: JSON
    ) -> Published:
        """Say what changed about an agent."""
        return await self._publish("updated", {"agentId": agent_id, **extra}, user, session)

    async def deleted(
        self, agent_id: str, *, user: str | None = None, session: str | None = None, **extra: JSON
    ) -> Published:
        """Say that an agent is gone."""
        return await self._publish("deleted", {"agentId": agent_id, **extra}, user, session)

    async def status(
        self,
        agent_id: str,
        status: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say what an agent does now, in a word such as `idle`."""
        payload = {"agentId": agent_id, "status": status, **extra}
        return await self._publish("status", payload, user, session)

    async def task_started(
        self,
        agent_id: str,
        task_id: str,
        task: JSON,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say that an agent begins *task*: a sentence, or whatever describes it."""
        payload = {"agentId": agent_id, "taskId": task_id, "task": task, **extra}
        return await self._publish("task:started", payload, user, session)

    async def task_completed(
        self,
        agent_id: str,
        task_id: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say that a task is done; `result=…` says what came of it."""
        payload = {"agentId": agent_id, "taskId": task_id, **extra}
        return await self._publish("task:completed", payload, user, session)

    async def task_failed(
        self,
        agent_id: str,
        task_id: str,
        error: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Say that a task ended without success, and why."""
        payload = {"agentId": agent_id, "taskId": task_id, "error": error, **extra}
        return await self._publish("task:failed", payload, user, session)

    async def message(
        self,
        agent_id: str,
        message: str,
        *,
        user: str | None = None,
        session: str | None = None,
        **extra: JSON,
    ) -> Published:
        """Pass on what an agent says."""
        payload = {"agentId": agent_id, "message": message, **extra}
        return await self._publish("message", payload, user, session)
