"""Finds the events of a request in the log, and what its decisions were made from."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from msgspec import Struct
from trunkline_actors import explaining
from trunkline_actors.explaining import Attempted
from trunkline_actors.redeciding import Recorded, Timeline, again, differences
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.thread import Books, Ending, RequestRefused, RouteDecided, ThreadEvent
from trunkline_projections.as_of import FOLDED
from trunkline_projections.threads import EMPTY, books_of

from trunkline import errors

LOOK_BACK = 3_700.0
"""Seconds before an event in which the first of its request must lie: an hour is the longest deadline."""


async def explain(
    log: JetStreamLog,
    request_id: str | None = None,
    *,
    event: int | None = None,
    thread: str | None = None,
    since: float | None = None,
) -> dict[str, Any]:
    """Why a request was served as it was, as `explaining.explain` has it. Raises NotFound, LogError.

    The request is named by its id, or by the sequence of any of its events, such as its receipt: that finds it at
    once. By its id the log is read, or a `thread` of it, from Unix time `since` on. An id that was used again means
    the last request with it.
    """
    if event is not None:
        found = await log.get(event)
        wanted = getattr(found.body, "request_id", None) if found else None
        if found is None or not wanted:
            raise _not_found(f"event {event:,} is none of a request; see `trunkline events replay --category thread`")
        request_id, thread, since = wanted, found.aggregate, found.time - LOOK_BACK
    assert request_id is not None, "a request is named by its id or by an event"
    attempts, refused, at = await _events_of(log, request_id, thread, since)
    if not attempts and refused is None:
        raise _not_found(f"no event of a request {request_id!r} was found; it may be of another thread, or earlier")
    line = await timeline(log)
    books = await _books_before(log, at, attempts)
    built = [
        Attempted(decided=decided, ended=ended, books=books[decided.sequence], gateway=line.at(_log_seq(decided)))
        for decided, ended in attempts
    ]
    return explaining.explain(built, refused)


Pairs = list[tuple[RecordedEvent, RecordedEvent | None]]


async def _events_of(
    log: JetStreamLog, request_id: str, thread: str | None, since: float | None
) -> tuple[Pairs, RecordedEvent | None, str]:
    """Decisions with their ends, the refusal, and the thread they are of."""
    decided: dict[tuple[str, str], RecordedEvent] = {}
    ended: dict[tuple[str, str], RecordedEvent] = {}
    refused: RecordedEvent | None = None
    where = thread or ""
    async with aclosing(log.read(scope=Scope(("thread",), thread), since=since)) as events:
        async for event in events:
            body = event.body
            if getattr(body, "request_id", None) != request_id:
                continue
            if isinstance(body, RouteDecided):
                decided[event.aggregate, body.attempt_id], where = event, event.aggregate
            elif isinstance(body, Ending):
                ended[event.aggregate, body.attempt_id] = event
            elif isinstance(body, RequestRefused):
                refused, where = event, event.aggregate
    pairs = [(event, ended.get(key)) for key, event in decided.items() if key[0] == where]
    return pairs, refused if refused is not None and refused.aggregate == where else None, where


async def timeline(log: JetStreamLog) -> Timeline:
    line = Timeline()
    async with aclosing(log.read(scope=Scope(FOLDED))) as events:
        async for event in events:
            line.add(event)
    return line


async def _books_before(log: JetStreamLog, thread: str, attempts: Pairs) -> dict[int, Books]:
    """The books that each decision was made from, by its sequence."""
    wanted = {decided.sequence for decided, _ in attempts}
    if thread == subjects.NO_THREAD or not wanted:
        return dict.fromkeys(wanted, EMPTY)
    books, found = EMPTY, {}
    async with aclosing(log.read(scope=Scope(("thread",), thread))) as events:
        async for event in events:
            if event.sequence in wanted:
                found[event.sequence] = books
            if isinstance(event.body, ThreadEvent):
                books = books_of(event.body, event.sequence)
            if event.sequence >= max(wanted):
                break
    return found


def _log_seq(event: RecordedEvent) -> int:
    assert isinstance(event.body, RouteDecided)
    return event.body.log_seq


def _not_found(message: str) -> errors.NotFound:
    return errors.NotFound(message, code="not_found", status=404)


class Differing(Struct, frozen=True):
    """A decision that comes out differently when it is made again, and in what."""

    sequence: int
    request_id: str
    differences: list[str]


class Redecided(Struct):
    """How many decisions were made again, and those that came out differently."""

    decisions: int = 0
    differing: list[Differing] = []


async def recorded_decisions(
    log: JetStreamLog, after: int = 0, until: int | None = None
) -> AsyncGenerator[tuple[RecordedEvent, Recorded], None]:
    """Every decision in a part of the log, with what it was made from. The log is read from its beginning."""
    line, books = Timeline(), dict[str, Books]()
    async with aclosing(log.read()) as events:
        async for event in events:
            if until is not None and event.sequence > until:
                return
            line.add(event)
            body = event.body
            if event.category != "thread" or not isinstance(body, ThreadEvent):
                continue
            if isinstance(body, RouteDecided) and event.sequence > after:
                before = EMPTY if event.aggregate == subjects.NO_THREAD else books.get(event.aggregate, EMPTY)
                gateway = line.at(body.log_seq)
                yield event, Recorded(thread=event.aggregate, decision=body, books=before, gateway=gateway)
            if event.aggregate != subjects.NO_THREAD:
                books[event.aggregate] = books_of(body, event.sequence)


async def redecide(log: JetStreamLog, after: int = 0, until: int | None = None) -> Redecided:
    """Make every decision of a part of the log again."""
    told = Redecided()
    async with aclosing(recorded_decisions(log, after, until)) as decisions:
        async for event, recorded in decisions:
            told.decisions += 1
            if found := differences(recorded.decision, again(recorded)):
                told.differing.append(Differing(event.sequence, recorded.decision.request_id, found))
    return told
