"""The owner of every thread's books in this process: what is remembered, and what must be asked of the log."""

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from typing import cast
from weakref import WeakValueDictionary

import structlog
from trunkline_events.envelope import Event, RecordedEvent, Unknown
from trunkline_events.log import Log, LogError, Scope
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import Books, ThreadEvent
from trunkline_events.thread import Ending as EndingEvent
from trunkline_events.usage import Usage
from trunkline_projections.threads import EMPTY, books_of

from trunkline_actors import money
from trunkline_actors.endings import Attempt, Ending
from trunkline_actors.shell import Command, Decided, Shell

log = structlog.get_logger()

ENDED = "/ended"
"""What the id of an ending has after that of its attempt."""
REMEMBERED = 20_000
"""Threads whose books are kept in memory, the least recently used forgotten first."""


class Ledger:
    """A `Source` of books. Requests of one thread are decided one after another; threads don't wait for each other."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: OrderedDict[str, tuple[Books, int]] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        if aggregate == NO_THREAD:
            return None
        lock = self._locks.get(aggregate)
        if lock is None:
            lock = self._locks[aggregate] = asyncio.Lock()
        return lock

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Books, int | None, bool]:
        if aggregate == NO_THREAD:
            return EMPTY, None, False
        known = self._known.get(aggregate)
        if known is not None and not fresh:
            return known[0], known[1], True
        # At first any replica's word will do: where it is behind, the append conflicts, and nothing is refused on it.
        recorded = await (self._log.last if fresh else self._log.glance)("thread", aggregate)
        if recorded is None:
            return EMPTY, 0, not fresh
        books = await self._books_at(recorded)
        self.adopt(aggregate, books, recorded.sequence)
        return books, recorded.sequence, not fresh

    def config_seq(self, aggregate: str) -> int:
        """The sequence of a thread's configuration, as far as is remembered here; 0: none is known."""
        known = self._known.get(aggregate)
        return known[0].config_seq if known is not None else 0

    async def _books_at(self, last: RecordedEvent) -> Books:
        """The books after an event; where it is none we know (forged, or of a newer version), as far as we do.

        An attempt whose ending can't be read has ended all the same: at its reservation, as where nobody knows how.
        """
        if not isinstance(last.body, Unknown):
            return books_of(cast("ThreadEvent", last.body), last.sequence)
        log.warning("ledger.event_skipped", thread=last.aggregate, sequence=last.sequence, type=last.type)
        books = EMPTY
        async for event in self._log.read(scope=Scope(("thread",), last.aggregate)):
            if not isinstance(event.body, Unknown):
                books = books_of(cast("ThreadEvent", event.body), event.sequence)
            elif (ended := ended_by(event)) is not None and (attempt := books.open.get(ended)) is not None:
                books = money.close(books, ended, attempt.reserve_nanos, Usage(), event.time) or books
        return books

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        if aggregate != NO_THREAD:
            self.adopt(aggregate, books_of(cast("ThreadEvent", event), sequence), sequence)

    def adopt(self, aggregate: str, books: Books, sequence: int) -> None:
        """Take over what another process says these books are, if it is newer than what we know."""
        if aggregate == NO_THREAD:
            return
        known = self._known.get(aggregate)
        if known is None or known[1] < sequence:
            self._known[aggregate] = (books, sequence)
        self._known.move_to_end(aggregate)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


class OneRequest:
    """A `Source` for what belongs to no thread: the books of one request alone, which nobody else writes."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return None

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Books, int | None, bool]:
        return self._books, None, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        self._books = books_of(cast("ThreadEvent", event), sequence)


async def end(shell: Shell, ledger: Ledger, attempt: Attempt, ending: Ending, *, actor: str) -> Decided | None:
    """Append an ending, under an id that all endings of the attempt share; None where it had ended before.

    None too where it ended in an event that can't be read.

    Never gives up: an attempt whose money is held until somebody says how it ended must not be forgotten because the
    log was away for a while. Returns when the log has it.
    """
    command: Command[Books] = Command(
        category="thread",
        aggregate=attempt.aggregate,
        id=f"{attempt.attempt_id}{ENDED}",
        decide=ending,
        actor=actor,
        cause=f"{attempt.attempt_id}/decided",
        traceparent=attempt.traceparent,
        persistent=True,
    )
    source = OneRequest(attempt.books) if attempt.aggregate == NO_THREAD else ledger
    decided = await shell.execute(source, command)
    assert decided is None or isinstance(decided, Decided)
    if decided is not None and isinstance(decided.event, Unknown):
        return None
    if decided is not None and attempt.aggregate != NO_THREAD:
        await _warn(shell, ledger, attempt, cast("ThreadEvent", decided.event), actor)
    return decided


async def _warn(shell: Shell, ledger: Ledger, attempt: Attempt, ended: ThreadEvent, actor: str) -> None:
    """Tell, once in each window, that the share of the budget is spent at which somebody wants to know."""
    if money.warn(ended, attempt.request_id) is None:
        return
    command: Command[Books] = Command(
        category="thread",
        aggregate=attempt.aggregate,
        id=f"{attempt.attempt_id}/warned",
        decide=lambda books, _now: money.warn(books, attempt.request_id),
        actor=actor,
        cause=f"{attempt.attempt_id}{ENDED}",
        traceparent=attempt.traceparent,
    )
    try:
        await shell.execute(ledger, command)
    except LogError as error:  # the next ending tells it
        log.warning("ledger.not_warned", thread=attempt.aggregate, error=type(error).__name__)


async def has_ended(log_: Log, ledger: Ledger, aggregate: str, attempt_id: str, decided: int) -> bool:
    """Whether an attempt, decided at this sequence, has ended: for a process that may have been stopped meanwhile."""
    if aggregate != NO_THREAD:
        books, _, _ = await ledger.load(aggregate, fresh=True)
        return attempt_id not in books.open
    return await ended_at(log_, aggregate, attempt_id, decided) is not None


async def ending_of(log_: Log, aggregate: str, attempt_id: str, decided: int) -> EndingEvent | None:
    """How an attempt ended that was decided at this sequence; None where it is open. Reads all events since then."""
    ended = await ended_at(log_, aggregate, attempt_id, decided)
    return ended.body if ended is not None and isinstance(ended.body, EndingEvent) else None


async def ended_at(log_: Log, aggregate: str, attempt_id: str, decided: int) -> RecordedEvent | None:
    """The event in which an attempt ended, whether or not it can be read. Reads all events since it was decided."""
    async with aclosing(log_.read(decided, scope=Scope(("thread",), aggregate))) as events:
        async for event in events:
            if ended_by(event) == attempt_id:
                return event
    return None


def ended_by(event: RecordedEvent) -> str | None:
    """Which attempt an event ended; by its id, where it can't be read."""
    if isinstance(event.body, EndingEvent):
        return event.body.attempt_id
    unread = isinstance(event.body, Unknown) and event.id.endswith(ENDED)
    return event.id.removesuffix(ENDED) if unread else None
