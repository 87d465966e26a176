"""Finds the events of a request in the log, and what its decisions were made from."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from msgspec import Struct
from trunkline_actors import explaining
from trunkline_actors.dry_run import run_of
from trunkline_actors.explaining import Attempted
from trunkline_actors.redeciding import Recorded, Timeline, again, differences
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.thread import (
    AnswerReused,
    AttemptFailed,
    Books,
    Ending,
    RequestRefused,
    RouteDecided,
    ThreadEvent,
)
from trunkline_projections.as_of import FOLDED
from trunkline_projections.threads import EMPTY, books_of

from trunkline import errors

Pairs = list[tuple[RecordedEvent, RecordedEvent | None]]
"""Decisions, each with its end where it has ended."""

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
            raise _not_found(f"event {event:,} is none of a request; {_LOOK}")
        request_id, thread, since = wanted, found.aggregate, found.time - LOOK_BACK
    assert request_id is not None, "a request is named by its id or by an event"
    found_run = await _run_of(log, request_id, thread, since, event)
    if found_run is None:
        message = f"no event of a request {request_id!r} was found, it may be of another thread, or earlier"
        raise _not_found(f"{message}; {_LOOK}")
    attempts, refused, at = found_run.pairs(), found_run.refused, found_run.thread
    line = await timeline(log)
    books = await _books_before(log, at, attempts)
    built = [
        Attempted(decided=decided, ended=ended, books=books[decided.sequence], gateway=line.at(_log_seq(decided)))
        for decided, ended in attempts
    ]
    return explaining.explain(built, refused, found_run.reused)


class _Run:
    """The events of one request, from its first decision on. Its id may be another request's as well: with another key,
    or of an earlier time.
    """

    def __init__(self, thread: str) -> None:
        self.thread = thread
        self.decided: dict[str, RecordedEvent] = {}
        self.ended: dict[str, RecordedEvent] = {}
        self.refused: RecordedEvent | None = None
        self.reused: RecordedEvent | None = None
        self.last = 0

    def add(self, event: RecordedEvent) -> None:
        """One more of its events."""
        body = event.body
        self.last = event.sequence
        if isinstance(body, RouteDecided):
            self.decided[body.attempt_id] = event
        elif isinstance(body, Ending):
            self.ended[body.attempt_id] = event
        elif isinstance(body, AnswerReused):
            self.reused = event
        else:
            self.refused = event

    def begins_anew(self, event: RecordedEvent) -> bool:
        """Whether this event is of a later request with the same id."""
        body = event.body
        if isinstance(body, AnswerReused):
            return True
        if isinstance(body, RouteDecided):
            return body.attempt == 1
        going_on = self.decided and all(isinstance(end.body, AttemptFailed) for end in self.ended.values())
        return isinstance(body, RequestRefused) and not going_on

    def has(self, sequence: int) -> bool:
        """Whether the event at this sequence is one of them."""
        of_it = (*self.decided.values(), *self.ended.values(), *filter(None, (self.refused, self.reused)))
        return any(event.sequence == sequence for event in of_it)

    def pairs(self) -> Pairs:
        """Decisions with their ends."""
        return [(event, self.ended.get(attempt_id)) for attempt_id, event in self.decided.items()]


async def _run_of(
    log: JetStreamLog, request_id: str, thread: str | None, since: float | None, sequence: int | None
) -> _Run | None:
    """The request that has the event at `sequence`; None: the last one with this id."""
    runs: list[_Run] = []
    current: dict[str, _Run] = {}
    async with aclosing(log.read(scope=Scope(("thread",), thread), since=since)) as events:
        async for event in events:
            body = event.body
            if not isinstance(body, RouteDecided | Ending | RequestRefused | AnswerReused):
                continue
            if body.request_id != request_id:
                continue
            # What is no attempt has the id of the one it would have been.
            own = body.attempt_id if isinstance(body, RouteDecided | Ending) else None
            attempt_id = own or event.id.rpartition("/")[0]
            name = f"{event.aggregate} {run_of(attempt_id)}"
            run = current.get(name)
            if run is None or run.begins_anew(event):
                run = current[name] = _Run(event.aggregate)
                runs.append(run)
            run.add(event)
    if sequence is not None:
        return next((run for run in runs if run.has(sequence)), None)
    return max(runs, key=lambda run: run.last, default=None)


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


_LOOK = "see `trunkline events replay --category thread`"


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
