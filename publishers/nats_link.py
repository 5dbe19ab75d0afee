"""One connection to NATS for publishing, from its first byte to its loss; never used again.

nats-py would reconnect by itself, and then send what its own buffer still holds. That can be
older than JetStream's two minutes of remembering ids, so an event would be stored twice. Here a
lost connection is thrown away with its buffer, and the window (window.py) decides what is sent
on the next one.

Answers come to one wildcard inbox and are handed over as they are read, without nats-py's queue
and task for a subscription: 15 µs an event instead of 31 with `js.publish_async`. For that
`_process_msg` is overridden, which is private: the dependency is pinned below the next minor
version, and tests/publishers/test_nats_link.py fails if its meaning changes.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import nats.errors
import structlog

from jarvis_mesh.publishers.window import Pending
from jarvis_mesh.schema.errors import ForbiddenError, UnauthorizedError, UnavailableError
from jarvis_mesh.schema.nats_client import SecureClient, explain_refusal
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

_REFUSED_PUBLISH: Final = re.compile(r'permissions violation for publish to "([^"]+)"')
_REFUSED_INBOX: Final = "permissions violation for subscription"
_CLOSE_WITHIN: Final = 1.0
_PING_EVERY: Final = 10
"""Seconds; two unanswered pings end a connection whose other side is gone without a word."""
_NO_BUFFER_LIMIT: Final = 1 << 30
"""Above this nats-py waits for the socket, and swallows a cancellation; our window is smaller."""

log = structlog.get_logger(__name__)


class NatsLink:
    """A connection as the user in *url*, or as that of an nkey.

    Args:
        url: One or several NATS URLs, separated by commas.
        default_user: Whose inbox is used when the URL names no user.
        credentials: TLS and nkey, if there are any.
        on_answer: Called with the token of an event, raw headers and body of its answer.
        on_forbidden: Called with the lower-cased subject that the user may not publish on.
    """

    def __init__(
        self,
        url: str,
        default_user: str,
        on_answer: Callable[[str, bytes, bytes], None],
        on_forbidden: Callable[[str], None],
        *,
        credentials: NatsCredentials = NO_CREDENTIALS,
    ) -> None:
        self.user = urlsplit(url.split(",")[0]).username or default_user
        self.lost = asyncio.Event()
        """Set once nothing more can be sent."""
        self._url = url
        self._credentials = credentials
        self._inbox = f"_INBOX.{self.user}.{secrets.token_hex(8)}"
        self._on_answer = on_answer
        self._on_forbidden = on_forbidden
        self._client = _Client(self._take_answer)
        self._error: Exception | None = None
        self._refusal: str | None = None

    @property
    def is_up(self) -> bool:
        """Whether events can be sent now."""
        return self._client.is_connected and not self.lost.is_set()

    async def open(self, within: float) -> None:
        """Connect and subscribe the inbox, within *within* seconds.

        Raises:
            UnavailableError: NATS can't be reached in time.
            UnauthorizedError: it doesn't know the user, or another password, or refuses the
                certificate, or we refuse its.
            SetupError: a certificate's file can't be read.
            ForbiddenError: the user may not listen to its answers.
        """
        try:
            async with asyncio.timeout(within):
                await self._connect(within)
                await self._client.subscribe(f"{self._inbox}.*")
                # Twice: the first's question overtakes what nats-py (2.16) has in its buffer,
                # so a refusal of the inbox could come after its answer.
                await self._client.flush()
                await self._client.flush()
        except (OSError, nats.errors.Error, TimeoutError) as error:
            await self.close()
            raise self._explain(error) from None
        except BaseException:
            await self.close()
            raise
        if self._error is not None and _REFUSED_INBOX in str(self._error):
            await self.close()
            raise ForbiddenError(
                f"the NATS user {self.user!r} may not subscribe _INBOX.{self.user}.>, "
                "where the log's answers come"
            )

    async def send(self, pending: Pending) -> None:
        """Hand an event to the socket. It doesn't wait.

        Raises:
            OSError, nats.errors.Error: it wasn't sent.
        """
        await self._client.publish(
            pending.subject,
            pending.body,
            reply=f"{self._inbox}.{pending.token}",
            headers={"Nats-Msg-Id": pending.event_id},
        )

    async def close(self) -> None:
        """Close the connection; cut after a second. Idempotent."""
        self.lost.set()
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._client.close()
        except (OSError, nats.errors.Error, TimeoutError) as error:
            log.debug("NATS connection cut", error=repr(error))
        finally:
            self._client.abort()

    async def _connect(self, within: float) -> None:
        servers = self._url.split(",")
        self._client.credentials = self._credentials
        await self._client.connect(
            servers,
            name=f"mesh-publisher {self.user}",
            inbox_prefix=f"_INBOX.{self.user}".encode(),
            # For each: one that is frozen takes connections and says nothing, and the others
            # must have their turn in time.
            connect_timeout=within / len(servers),  # type: ignore[arg-type]  # any number does
            # nats-py retries even a first connect: 1 is the least it can be told.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.05,  # type: ignore[arg-type]  # any number does
            ping_interval=_PING_EVERY,
            pending_size=_NO_BUFFER_LIMIT,
            disconnected_cb=self._note_loss,
            error_cb=self._note_error,
            **self._credentials.options(self._url),
        )

    async def _note_loss(self) -> None:
        self.lost.set()
        if self._client.is_reconnecting:
            # Hold nats-py back from reconnecting; `close` cancels the task that waits here.
            await asyncio.Event().wait()

    async def _note_error(self, error: Exception) -> None:
        self._error = error
        # After a refusal the server may cut the connection: no news.
        self._refusal = self._refusal or explain_refusal(error)
        if refused := _REFUSED_PUBLISH.search(str(error)):
            self._on_forbidden(refused[1])
        else:
            log.debug("NATS", error=str(error) or repr(error), user=self.user)

    def _take_answer(self, subject: bytes, headers: bytes, body: bytes) -> None:
        self._on_answer(subject.decode().rpartition(".")[2], headers, body)

    def _explain(self, error: Exception) -> UnavailableError | UnauthorizedError:
        # NoServersError says only that all tries failed; the reason was told to error_cb.
        reason = self._error or error
        address = ",".join(part.rpartition("@")[2] for part in self._url.split(","))
        if refusal := self._refusal or explain_refusal(reason):
            return UnauthorizedError(f"not connected to {address} as {self.user!r}: {refusal}")
        text = str(reason) or type(reason).__name__
        return UnavailableError(f"NATS can't be reached at {address}: {text}")


class _Client(SecureClient):
    """nats-py's client, handing over each message in the order of the wire."""

    def __init__(self, handler: Callable[[bytes, bytes, bytes], None]) -> None:
        super().__init__()
        self._handler = handler

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self._handler(subject, headers or b"", data)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)  # of a flush that was cancelled: nats-py (2.16) fails on it
        else:
            await super()._process_pong()

    def abort(self) -> None:
        """Drop the socket, and what it hasn't sent: `close` waits for a peer that is frozen."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
