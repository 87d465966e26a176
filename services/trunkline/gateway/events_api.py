"""The log over HTTP: events by the page, or live as server-sent events that resume without a gap."""

import asyncio
from collections import deque
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import LogError, Scope
from trunkline_events.tasks import end_task

from trunkline import errors
from trunkline.event_json import as_json
from trunkline.gateway import answers_log, dialects
from trunkline.gateway.access import Principal
from trunkline.gateway.audit_api import time_of
from trunkline.gateway.commands import invalid, query_of
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge

KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment is sent, so that nobody takes the connection for dead."""
AHEAD = 256
"""Events that are read ahead for one reader; the rest waits in the log."""
SCANNED = 10_000
"""Events that are looked at for one page: what fits may be rare."""
LARGEST = 2**63 - 1


class EventsAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events."""

    category: Annotated[list[str], Meta(description="of these categories, such as model, thread")] = []
    id: Annotated[str | None, Meta(description="of this model, provider, thread and so on")] = None
    type: Annotated[list[str], Meta(description="of these types; a name without its version is all of them")] = []
    after: Annotated[int, Meta(description="after this sequence; 0 is the beginning", ge=0)] | None = None
    since: Annotated[str | None, Meta(description="stored since this time, RFC 3339 or Unix time")] = None
    limit: Annotated[int, Meta(description="how many at most; a live stream has no end", ge=1, le=1000)] = 100

    def wants(self, event: RecordedEvent) -> bool:
        """Whether its type was asked for."""
        return not self.type or any(event.type == name or event.type.startswith(f"{name}.v") for name in self.type)


async def events(edge: "Edge", request: HttpRequest, principal: Principal) -> None:
    """A page, or the live stream where the client accepts one."""
    asked = query_of(request, EventsAsked)
    unknown = sorted(set(asked.category) - set(subjects.CATEGORIES))
    if unknown:
        raise invalid(f"{unknown[0]!r} is no category; there are {', '.join(subjects.CATEGORIES)}", "category")
    if asked.id == "":
        raise invalid("an id must not be empty", "id")
    if asked.after is not None and asked.after > LARGEST:
        raise invalid("no log gets as far", "after")
    since = None if asked.since is None else time_of(asked.since, "since")
    if "text/event-stream" in request.headers.get("accept", ""):
        await _stream(edge, request, asked, since)
    else:
        await request.json(await _page(edge, asked, since))


async def _page(edge: "Edge", asked: EventsAsked, since: float | None) -> Any:
    found: list[dict[str, Any]] = []
    after: int | None = None
    last = scanned = 0
    scope = Scope(tuple(asked.category), asked.id)
    try:
        log = await edge.gateway.log()
        end = await log.end()
        async with aclosing(log.read(asked.after or 0, scope=scope, since=since)) as read:
            async for event in read:
                if event.sequence > end:
                    break
                if len(found) == asked.limit or scanned == SCANNED:
                    after = last
                    break
                last, scanned = event.sequence, scanned + 1
                if asked.wants(event):
                    found.append(as_json(event))
    except LogError as error:
        raise errors.unavailable(f"the log can't be read: {error}") from error
    return {"ok": True, "events": found, "after": after, "seq": end}


# -- live --------------------------------------------------------------------------------------------------------------


async def _stream(edge: "Edge", request: HttpRequest, asked: EventsAsked, since: float | None) -> None:
    start = _start(request, asked.after)
    await request.body()
    reader = _Reader(edge, asked, start if start is not None or since is None else since)
    request.when_left(reader.stop)
    draining = asyncio.ensure_future(edge.drains.wait())
    draining.add_done_callback(lambda _: reader.stop())
    try:
        await request.start(200, {"content-type": "text/event-stream", "cache-control": "no-store"})
        await request.piece(b": events as they happen\n\n")
        while (data := await reader.some()) is not None:
            await request.piece(data)
        await request.end()
    finally:
        await end_task(draining)
        await reader.close()


def _start(request: HttpRequest, after: int | None) -> int | None:
    """Where to go on: after the last event the client has, else where its query says. Raises InvalidRequest."""
    last = request.headers.get("last-event-id")
    if last is None or not last.strip():
        return after
    if not (last.isascii() and last.isdecimal()) or len(last) > 18:
        raise invalid("Last-Event-ID must be the `id` of an event of this stream", "Last-Event-ID")
    return int(last)


class _Reader:
    """Reads the log ahead of one client, as far as that keeps up: it never holds more than `AHEAD` events for it."""

    def __init__(self, edge: "Edge", asked: EventsAsked, since: int | float | None) -> None:
        self._edge, self._asked, self._since = edge, asked, since
        self._read: deque[RecordedEvent] = deque()
        self._passed = self._told = 0
        self._stopped = False
        self._wakes, self._room = asyncio.Event(), asyncio.Event()
        self._pump = asyncio.create_task(self._follow())
        self._pump.add_done_callback(lambda _: self._wakes.set())

    async def _follow(self) -> None:
        asked = self._asked
        happened = self._edge.gateway.events(*asked.category, id=asked.id, since=self._since)
        async with aclosing(happened) as following:
            async for event in following:
                self._passed = event.sequence
                if not asked.wants(event):
                    continue
                self._read.append(event)
                self._wakes.set()
                while len(self._read) >= AHEAD:
                    self._room.clear()
                    await self._room.wait()

    def stop(self) -> None:
        """There is no more to send."""
        self._stopped = True
        self._wakes.set()

    async def some(self) -> bytes | None:
        """What to send next: waits for it. None at the end."""
        while not self._read:
            if self._stopped:
                return None
            if self._pump.done():
                self._stopped = True
                return self._failure()
            self._wakes.clear()
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await self._wakes.wait()
            except TimeoutError:
                return self._alive()
        if self._stopped:  # whoever resumes gets what was not sent
            return None
        found = b"".join(_sse(event) for event in self._read)
        self._told = self._read[-1].sequence
        self._read.clear()
        self._room.set()
        return found

    def _alive(self) -> bytes:
        """A comment; and the id of an event that was passed over, so that whoever resumes need not read it again."""
        if self._passed <= self._told or self._read:
            return b": still here\n\n"
        self._told = self._passed
        return b": still here\nid: %d\n\n" % self._passed

    def _failure(self) -> bytes | None:
        error = self._pump.exception()
        if error is None:
            return None
        known = error if isinstance(error, errors.TrunklineError) else errors.unavailable("the log can't be followed")
        return b"event: error\ndata: " + dialects.body_of(known, "openai") + b"\n\n"

    async def close(self) -> None:
        """Follow the log no more."""
        with suppress(Exception):
            await end_task(self._pump)


def _sse(event: RecordedEvent) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (event.sequence, msgspec.json.encode(as_json(event)))


ROUTES: list[Route] = [
    Route(
        method="GET",
        path="/api/events",
        handler=events,
        access="read",
        summary="The events of the log, by the page or live",
        tag="Events",
        asks=EventsAsked,
        gives=answers_log.Events,
        streams=True,
    )
]
