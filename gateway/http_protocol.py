"""uvicorn's HTTP protocol, which waits for no client for ever and keeps little of what it sends.

A request is awaited in two steps, its head and its body. While one is awaited there is a timer, set
anew by what brings it further: a whole head, a piece of the body. Bytes that do neither (a field
that never ends, empty lines, trailers) are counted, and are too many soon. Once a request is
whole, or has become a WebSocket, there is no such timer: what is between two requests is uvicorn's,
a WebSocket the gateway's. An answer that a client doesn't take is cut in the end.

Source: RFC 9110, sections 15.5.9 (408) and 6.5.1 (trailers); RFC 6585, section 5 (431).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from jarvis_mesh.gateway.sockets import TRANSPORT, Upgraded, UpgradeRequest, unsent_bytes

BUFFER_BYTES: Final = 16 * 1024
"""What asyncio keeps of a socket that takes nothing, before writing is paused."""
READ_BYTES: Final = 4096
"""What is read of a client's requests at a time: in 256 KiB, which asyncio reads otherwise, fit
14,000 requests, a tenth of a second in which nobody else is served."""
MAX_FIELDS: Final = 100
"""Fields that the head of a request may have; browsers send a fifth of that."""


class Limits(NamedTuple):
    """How long a request is awaited, and how large its head may be."""

    header_timeout: float = 10.0
    """Seconds for a head."""
    max_header_bytes: int = 16 * 1024
    stalled_after: float = 600.0
    """Seconds in which a client has to take something of an answer."""
    body_timeout: float = 30.0
    """Seconds between two pieces of a body."""


class _Awaited(Enum):
    """What is missing of a request."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class _TooLargeError(Exception):
    """Ends the parsing of a request, for `send_400_response` to answer."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1, up to where a client asks for a WebSocket.

    Args:
        limits: What a client has to keep to.
        by_uvicorn: What uvicorn gives its protocols.
    """

    def __init__(self, limits: Limits, **by_uvicorn: Any) -> None:
        super().__init__(**by_uvicorn)
        self._limits = limits
        self._awaited = _Awaited.HEAD
        self._idle_bytes = 0
        """Received since the last that brought the request further."""
        self._received = b""
        self._is_further = False
        self._is_too_large = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    # As the transport sees it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        if hasattr(transport, "max_size"):  # of asyncio's own sockets
            transport.max_size = READ_BYTES
        super().connection_made(transport)
        self._set_timer()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # over TLS what had come already comes even then
        self._is_further = False
        self._idle_bytes += len(data)
        self._received = data
        super().data_received(data)
        self._received = b""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._stop_timer()  # it has become a WebSocket, or was refused
        elif self._is_further:
            self._idle_bytes = 0
            self._set_timer()
        elif self._idle_bytes > self._limits.max_header_bytes:
            self._is_too_large = True
            self.send_400_response("")
        elif self._timer is None:  # another request begins; uvicorn has stopped its own timer
            self._awaited = _Awaited.HEAD
            self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_writing_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_writing_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_writing_timer()

    # As the parser sees it

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaited = _Awaited.HEAD
        cast(dict[str, Any], self.scope)["extensions"] = {TRANSPORT: self.transport}

    def on_headers_complete(self) -> None:
        # Nearly always all that has come is less: then there is nothing to add up.
        if self._idle_bytes > self._limits.max_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            self._is_too_large = size > self._limits.max_header_bytes
        if self._is_too_large or len(self.headers) > MAX_FIELDS:
            self._is_too_large = True
            raise _TooLargeError
        self._awaited = _Awaited.BODY
        self._is_further = True
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers = []  # for trailers, which don't belong among what the app has read

    def on_body(self, body: bytes) -> None:
        self._is_further = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaited = _Awaited.NOTHING
        self._is_further = True
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Let the class that is uvicorn's `ws` answer, with the headers as they were parsed.

        uvicorn writes them down again for it to parse once more.
        """
        if self._is_answering():
            self.transport.abort()  # it asks in the middle of another answer
            return
        self._stop_timer()
        self._stop_writing_timer()
        self.connections.discard(self)
        make = cast(Callable[[ServerState], Upgraded], self.ws_protocol_class)
        upgraded = make(self.server_state)
        self.transport.set_protocol(cast(asyncio.BaseProtocol, upgraded))
        upgraded.upgrade(
            self.transport,
            UpgradeRequest(
                path=_path_of(self.url),
                method=self.scope["method"],
                protocol=f"HTTP/{self.scope['http_version']}",
                headers=self.headers,
                peer=None if self.client is None else self.client[0],
                early=self._received[_end_of_request() :],
            ),
        )
        # Parser and protocol hold each other: without this they wait for the garbage collector.
        self.parser = None  # type: ignore[assignment]

    # Patience

    def send_400_response(self, msg: str) -> None:
        """Refuse what isn't HTTP, or is too much of it, and close."""
        if self._is_too_large:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST)

    def _set_timer(self) -> None:
        self._stop_timer()
        if self._awaited is _Awaited.NOTHING:
            return
        limits, awaits_head = self._limits, self._awaited is _Awaited.HEAD
        seconds = limits.header_timeout if awaits_head else limits.body_timeout
        self._timer = self.loop.call_later(seconds, self._on_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self) -> None:
        if self.flow.read_paused:
            self._set_timer()  # what is missing may wait for us to read it
        elif self._awaited is _Awaited.HEAD and not self._idle_bytes:
            self.transport.close()  # it never asked: an answer would be one to nothing
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with *status* and close; cut, where that would be in the middle of an answer."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self._is_answering() and not self._can_still_answer():
            self.transport.abort()
            return
        text = f"{status.phrase}\n"
        self.transport.write(
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
        )
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._set_writing_timer()

    def _set_writing_timer(self) -> None:
        self._stop_writing_timer()
        self._unsent_bytes = unsent_bytes(self.transport)
        self._writing_timer = self.loop.call_later(self._limits.stalled_after, self._on_stalled)

    def _stop_writing_timer(self) -> None:
        if self._writing_timer is not None:
            self._writing_timer.cancel()
            self._writing_timer = None

    def _on_stalled(self) -> None:
        if unsent_bytes(self.transport) < self._unsent_bytes:
            self._set_writing_timer()
        else:
            self.transport.abort()  # closing would wait for it too

    def _can_still_answer(self) -> bool:
        """Say whether the app waits for a body, and nothing of any answer was sent."""
        is_first = not self.pipeline and not self.cycle.response_started
        return is_first and self._awaited is _Awaited.BODY

    def _is_answering(self) -> bool:
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is not None and not cycle.response_complete


def _path_of(url: bytes) -> str:
    """Return the path of a request's target; empty if there is none, as in `http://host`."""
    try:
        return (httptools.parse_url(url).path or b"").decode("latin-1")
    except httptools.HttpParserInvalidURLError:
        return ""


def _end_of_request() -> int:
    """Return where, in what was received last, the request ends that asks for another protocol.

    The parser says it with the exception that uvicorn handles right now.
    """
    upgrade = sys.exception()
    assert isinstance(upgrade, httptools.HttpParserUpgrade)  # noqa: S101 - who else would ask
    return int(upgrade.args[0])
