"""A connection to NATS whose messages are handed over at once, in wire order.

nats-py gives every subscription a queue and a task of its own, so messages of different
subscriptions overtake each other; the whole live feed rests on their order. Here the protocol
reader calls a handler instead, with the headers unparsed (parsing them costs 10 µs of the
14 to 21 µs that nats-py spends on a live copy).

`_process_msg` and what `listen` uses are private: the dependency is pinned below the next minor
version, and tests/gateway/test_nats_connection.py fails if their meaning changes.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import structlog
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError

from jarvis_mesh.config.nats_conf import GATEWAY
from jarvis_mesh.schema.errors import SetupError, UnavailableError
from jarvis_mesh.schema.nats_client import SecureClient, explain_refusal
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

Handler: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""Called with subject, raw headers (empty if none) and body. It must not raise."""

MIN_SERVER: Final = (2, 11)
"""The first nats-server with batched Direct Get."""
RECONNECT_EVERY: Final = 0.2
"""Seconds between attempts."""
PING_EVERY: Final = 10
"""Seconds; after two without an answer the connection counts as broken."""
ANSWER_WITHIN: Final = 1
"""Seconds for a ping that is sent because something else wasn't answered."""
_NEVER_STOP: Final = -1
_REFUSED_PUBLISH: Final = re.compile(r'permissions violation for publish to "([^"]+)"')
"""As nats-py hands it on: in lower case, the subject too."""

log = structlog.get_logger(__name__)


class _Listening(Subscription):
    """A subscription with what nats-py needs for subscribing it again after a reconnect.

    Its own has a queue, a limit and an iterator besides: 4 KB for each filter, in a cycle that
    only the garbage collector ends.
    """

    def __init__(self, connection: SecureClient, sid: int, subject: str) -> None:
        self._conn = connection
        self._id = sid
        self._subject = subject
        self._queue = ""
        self._max_msgs = self._received = 0
        self._closed = False
        self._wait_for_msgs_task = None
        self._message_iterator = None
        self._pending_next_msgs_calls = {}


class NatsConnection(SecureClient):
    """nats-py's client with synchronous handlers beside its subscriptions."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[int, Handler] = {}
        self._reported: set[str] = set()
        self.on_refused: Callable[[str], None] = lambda _subject: None
        """Called with the lower-cased subject that the user may not publish on."""

    async def open(
        self,
        url: str,
        *,
        name: str,
        on_disconnected: Callable[[], Awaitable[None]],
        on_reconnected: Callable[[], Awaitable[None]],
        credentials: NatsCredentials = NO_CREDENTIALS,
    ) -> None:
        """Connect as the user in *url*, and return once connected; it may take for ever.

        From then on it reconnects by itself until closed, also to nodes of a cluster that
        *url* doesn't name. Where it names several, the first one's user counts.

        Raises:
            SetupError: the server is too old, or a certificate can't be read.
        """

        async def reconnected() -> None:
            self._reported.clear()
            await on_reconnected()

        user, password = _user_and_password(url)
        self.credentials = credentials
        await self.connect(
            url.split(","),
            name=name,
            inbox_prefix=f"_INBOX.{GATEWAY}".encode(),
            max_reconnect_attempts=_NEVER_STOP,
            ping_interval=PING_EVERY,
            reconnect_time_wait=RECONNECT_EVERY,  # type: ignore[arg-type]  # takes fractions
            disconnected_cb=on_disconnected,
            reconnected_cb=reconnected,
            error_cb=self._report,
            user=user,
            password=password,
            **credentials.options(url),
        )
        self._reported.clear()
        version = self.connected_server_version
        if (version.major, version.minor) < MIN_SERVER:
            await self.close()
            raise SetupError(f"nats-server {version} is too old: 2.11 or newer is needed")

    async def check(self) -> None:
        """Make a new connection unless the server at the other end answers.

        nats-py would take 20 to 30 s to notice that a peer is gone without a word.
        """
        if not self.is_connected:
            return
        try:
            await self.flush(ANSWER_WITHIN)
        except (NatsError, TimeoutError):
            log.warning("NATS doesn't answer: connecting again")
            await self.force_reconnect()

    async def shut(self) -> None:
        """Close the connection, if there ever was one. Idempotent."""
        if self._current_server is not None:  # nats-py fails on one that was never opened
            await self.close()

    async def listen(self, subject: str, handler: Handler) -> Subscription:
        """Subscribe to *subject*; *handler* gets its messages as they come off the wire."""
        if self.is_closed:
            raise ConnectionClosedError
        self._sid += 1
        subscription = self._subs[self._sid] = _Listening(self, self._sid, subject)
        self._handlers[self._sid] = handler
        await self._send_subscribe(subscription)
        return subscription

    async def unlisten(self, subscription: Subscription) -> None:
        """Undo `listen`. Messages under way are dropped."""
        self._handlers.pop(subscription._id, None)
        if not self.is_closed:
            await subscription.unsubscribe()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        handler = self._handlers.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            handler(subject, headers or b"", data)
        except Exception:
            # nats-py would stop reading without a word. A new connection is repaired from
            # the last position, so the message isn't lost.
            log.exception("a message from NATS failed", subject=bytes(subject))
            await self.force_reconnect()

    async def publish(self, *args: Any, **options: Any) -> None:
        """Publish as nats-py does.

        Raises:
            UnavailableError: the connection broke, or can't take any more.
        """
        try:
            await super().publish(*args, **options)
        except (NatsError, OSError) as error:
            raise UnavailableError(f"NATS takes nothing now ({error!r}); try again") from None

    async def _report(self, error: Exception) -> None:
        """Log what nats-py tells; what each attempt to reconnect repeats, only once."""
        if refused := _REFUSED_PUBLISH.search(str(error)):
            self.on_refused(refused[1])
        text = describe(error, "MESH_NATS_URL")
        if text not in self._reported:
            self._reported.add(text)
            log.warning("NATS", error=text)


def _user_and_password(url: str) -> tuple[str | None, str | None]:
    """Return user and password of the first of the URLs.

    From a URL nats-py (2.15) takes them for that server alone: another node of the cluster, of
    which it learns from the server, would be asked without them, and refuse.
    """
    first = urlsplit(url.split(",")[0])
    return first.username, first.password


def describe(error: Exception, setting: str) -> str:
    """Return what went wrong with a connection by the URL in *setting*, without the URL."""
    refusal = explain_refusal(error)
    return f"{refusal} ({setting})" if refusal else str(error) or repr(error)
