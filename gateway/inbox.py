"""Questions to NATS whose answers are one message or many, over one wildcard subscription."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from jarvis_mesh.config.nats_conf import GATEWAY
from jarvis_mesh.gateway.nats_connection import NatsConnection
from jarvis_mesh.schema.errors import DeadlineError, UnavailableError

ANSWER_WITHIN: Final = 5.0
"""Seconds for a question to be answered whole."""


class Answer(NamedTuple):
    """One message that answers a question."""

    headers: bytes
    """Raw, from `NATS/1.0` on; empty if there are none."""
    body: bytes

    @property
    def status(self) -> bytes:
        """The three digits of a status line `NATS/1.0 404 …`; empty for a plain message."""
        return self.headers[9:12] if self.headers[8:9] == b" " else b""


IsLast: TypeAlias = Callable[[Answer], bool]


class ConnectionBrokeError(UnavailableError):
    """The question was sent and its answer is lost: what it asks for may have been done."""


class NotPermittedError(UnavailableError):
    """The gateway's NATS user may not publish on the subject: nothing was done."""


class _Question:
    def __init__(self, subject: str, is_last: IsLast) -> None:
        self.subject = subject
        self.is_last = is_last
        self.answers: list[Answer] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Inbox:
    """Asks over one connection and matches the answers by their subject."""

    def __init__(self, connection: NatsConnection) -> None:
        self.unanswered = asyncio.Event()
        """Set when a question wasn't answered in time: is the connection alive?"""
        self._nats = connection
        self._prefix = f"_INBOX.{GATEWAY}.{secrets.token_hex(8)}."
        self._numbers = itertools.count(1)
        self._open: dict[bytes, _Question] = {}
        connection.on_refused = self._refuse

    async def open(self) -> None:
        """Subscribe to the answers. Once per connection: nats-py renews it after a reconnect."""
        await self._nats.listen(f"{self._prefix}*", self._receive)

    async def ask(
        self,
        subject: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        is_last: IsLast = lambda _answer: True,
        within: float = ANSWER_WITHIN,
        by_server: bool = True,
    ) -> list[Answer]:
        """Publish *body* to *subject* and return its answers, the last one included.

        Args:
            by_server: Whether the server itself should answer: if it doesn't, is it alive?

        Raises:
            UnavailableError: not connected, or nobody serves *subject*: nothing was done.
            NotPermittedError: the NATS user may not ask that.
            ConnectionBrokeError: the connection broke after it was asked.
            DeadlineError: not answered whole *within* seconds.
        """
        if not self._nats.is_connected:
            raise UnavailableError("the gateway has no connection to NATS; try again soon")
        reply = f"{self._prefix}{next(self._numbers)}"
        question = self._open[reply.encode()] = _Question(subject, is_last)
        try:
            async with asyncio.timeout(within):
                await self._nats.publish(subject, body, reply=reply, headers=dict(headers or {}))
                await question.done
        except TimeoutError:
            if by_server:
                self.unanswered.set()
            raise DeadlineError(f"NATS didn't answer {subject} in {within:.0f} s") from None
        finally:
            del self._open[reply.encode()]
        if question.answers[-1].status == b"503":
            raise UnavailableError(f"nobody on NATS serves {subject} now")
        return question.answers

    def fail_all(self) -> None:
        """Fail what is asked now: the connection broke and no answer will come."""
        for question in self._open.values():
            if not question.done.done():
                question.done.set_exception(ConnectionBrokeError("the connection to NATS broke"))

    def _refuse(self, subject: str) -> None:
        """Fail what was asked on *subject*, which is lower-cased: no answer will come."""
        for question in self._open.values():
            if question.subject.lower() == subject and not question.done.done():
                reason = f"the NATS user {GATEWAY!r} may not publish on {question.subject}"
                question.done.set_exception(NotPermittedError(reason))

    def _receive(self, subject: bytes, headers: bytes, body: bytes) -> None:
        question = self._open.get(bytes(subject))
        if question is None or question.done.done():
            return  # given up
        answer = Answer(headers, body)
        question.answers.append(answer)
        if question.is_last(answer):
            question.done.set_result(None)
