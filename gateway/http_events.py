"""`GET /v1/events` and `POST /v1/events`: feeds without a WebSocket.

What a client accepts decides what it gets: an endless stream of server-sent events or of JSON
lines, or one page as JSON, which can wait for the next event (long poll).

Source: docs/protocol.md, "HTTP"; RFC 9110, section 12.5.1 (Accept).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from jarvis_mesh.gateway.access import filters_for
from jarvis_mesh.gateway.event_page import EventPage
from jarvis_mesh.gateway.event_stream import EventStream
from jarvis_mesh.gateway.feed import Feed
from jarvis_mesh.gateway.formats import JSON_LINES, Format, ServerSentEvents
from jarvis_mesh.gateway.gateway import Gateway
from jarvis_mesh.gateway.http_admission import Admitted, admit
from jarvis_mesh.gateway.http_errors import NO_STORE, refusal
from jarvis_mesh.gateway.limits import Visit
from jarvis_mesh.schema.cursor import Cursor, SecondsAgo, Since, parse_since
from jarvis_mesh.schema.errors import BadRequestError, MeshError, UnavailableError

MAX_LIMIT: Final = 1_000
MAX_WAIT: Final = 60.0
"""Seconds of a long poll; many proxies end what is silent for longer."""
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,3})?")
_PARAMETERS: Final = frozenset({"channel", "since", "limit", "wait"})
_TOKEN: Final = "access_token"  # noqa: S105 - a parameter's name


@dataclass(frozen=True, slots=True)
class Query:
    """What a GET asks for."""

    channels: tuple[str, ...]
    since: Since
    limit: int
    wait: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and who asks it."""

    query: Query
    client: Admitted


def parse_query(params: QueryParams, last_event_id: str | None) -> Query:
    """Return what the query string says; *last_event_id* beats its `since`.

    Raises:
        BadRequestError: an unknown parameter, or one that doesn't parse.
    """
    if unknown := set(params) - _PARAMETERS:
        if _TOKEN in unknown:
            raise BadRequestError(
                "access_token: only for text/event-stream, and only with MESH_QUERY_TOKENS"
            )
        raise BadRequestError(f"{min(unknown)[:40]!r}: there are channel, since, limit and wait")
    since = last_event_id or params.get("since")
    return Query(
        channels=tuple(params.getlist("channel")),
        since=_parse_since(since),
        limit=int(_number(params, "limit", MAX_LIMIT, lowest=1, highest=MAX_LIMIT)),
        wait=_number(params, "wait", 0, lowest=0, highest=MAX_WAIT),
    )


def _parse_since(text: str | None) -> Since:
    if text is not None and _SECONDS.fullmatch(text):
        return SecondsAgo(float(text))
    return parse_since(text)


def _number(
    params: QueryParams, name: str, default: float, *, lowest: float, highest: float
) -> float:
    text = params.get(name)
    if text is None:
        return default
    if not _SECONDS.fullmatch(text) or not lowest <= float(text) <= highest:
        raise BadRequestError(f"{name}: a number from {lowest:g} to {highest:g}")
    return float(text)


async def get_events(request: Request, gateway: Gateway) -> Response:
    """Answer `GET /v1/events`."""
    accept = request.headers.get("accept", "*/*")
    if request.method == "HEAD":
        return Response(headers=NO_STORE)  # there is no end of a stream to wait for
    try:
        if "text/event-stream" in accept:
            return await _event_source(request, gateway)
        if "application/x-ndjson" in accept:
            media_type, asked = "application/x-ndjson", await _asked(request, gateway)
            return await _stream(asked, gateway, media_type, _lines_format)
        if "json" in accept or "*/*" in accept or "application/*" in accept:
            return await _page(request, await _asked(request, gateway), gateway)
    except MeshError as error:
        return refusal(error, gateway.metrics)
    return Response(
        "There are text/event-stream, application/x-ndjson and application/json.\n", 406
    )


def _events_format(cursor: Cursor) -> Format:
    return ServerSentEvents(cursor.epoch)


def _lines_format(_cursor: Cursor) -> Format:
    return JSON_LINES


async def _event_source(request: Request, gateway: Gateway) -> Response:
    """Answer a browser's EventSource, which can send no token but in the URL."""
    params, token = request.query_params, None
    if gateway.settings.query_tokens and _TOKEN in params:
        if len(params.getlist(_TOKEN)) > 1 or "authorization" in request.headers:
            raise BadRequestError("access_token: one token, in one way (RFC 6750, section 2)")
        token = params[_TOKEN]
        params = QueryParams([(key, text) for key, text in params.multi_items() if key != _TOKEN])
    client = await admit(request, gateway, token)
    query = parse_query(params, request.headers.get("last-event-id"))
    return await _stream(Asked(query, client), gateway, "text/event-stream", _events_format)


async def _stream(
    asked: Asked, gateway: Gateway, media_type: str, form: Callable[[Cursor], Format]
) -> Response:
    feed, cursor, visit = await _open(asked, gateway)
    chosen = form(feed.engine.cursor)
    return EventStream(feed, cursor, chosen, asked.client.grants, visit, gateway, media_type)


async def _page(request: Request, asked: Asked, gateway: Gateway) -> Response:
    feed, _, visit = await _open(asked, gateway)
    page = EventPage(feed, gateway.services, asked.query.limit, asked.client.grants, visit)
    with gateway.serving(page):
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(_end_when_gone(request, page))
            try:
                answer = await page.collect(asked.query.wait)
            except MeshError as error:
                return refusal(
                    error, gateway.metrics
                )  # raised in a task group, it would come out in another form
            finally:
                leaving.cancel()
    return Response(answer, media_type="application/json", headers=NO_STORE)


async def _end_when_gone(request: Request, page: EventPage) -> None:
    """End a page whose client doesn't wait for it any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    page.end("gone", 0)


async def _asked(request: Request, gateway: Gateway) -> Asked:
    client = await admit(request, gateway)
    return Asked(parse_query(request.query_params, None), client)


async def _open(asked: Asked, gateway: Gateway) -> tuple[Feed, Cursor, Visit]:
    if gateway.is_draining:
        raise UnavailableError("this gateway is shutting down; try another one")
    grants, services = asked.client.grants, gateway.services
    filters = filters_for(asked.query.channels, grants, gateway.settings.max_channels)
    visit = services.limits.visit(asked.client.address, grants.user)
    feed = Feed(filters, services, visit)
    try:
        return feed, await feed.open(asked.query.since), visit
    except BaseException:
        visit.end()
        await feed.close()
        raise
