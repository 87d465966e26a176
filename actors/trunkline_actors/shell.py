"""The only loop that loads, folds, decides, appends, and decides again on a conflict. Everything else calls it."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

import structlog
from msgspec import Struct
from trunkline_events.envelope import Event, NewEvent
from trunkline_events.log import Conflict, Log, LogRefused, LogUnavailable, Scope, TooLarge
from trunkline_events.refusal import Refused

log = structlog.get_logger()

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

MAX_CONFLICTS = 16
"""Lost races before a command gives up. Endings never give up."""


ID_KNOWN = 60.0
"""Seconds after which nobody relies on the log knowing an id: half of its duplicate window."""
APPENDED_BEFORE = 60.0
"""How long before the trouble was noticed an append may have been stored, by the clock of another machine."""


class Source(Protocol[S_co]):
    """Where an aggregate's state comes from, and who may decide about it in this process: one at a time."""

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        """The lock of this aggregate's owner; None where decisions about it don't depend on each other."""
        ...

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[S_co, int | None, bool]:
        """The state, the sequence it stands at (None: append without expectation), and whether it may be stale.

        `fresh`: what this process remembers is known to be stale; ask the log.
        """
        ...

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """This event was appended by us: remember the state after it."""
        ...


class Command(Struct, Generic[S], frozen=True, kw_only=True):
    """One decision to be made and kept.

    `decide(state, now)` is pure and may run several times; it gives the event, a refusal, or None where nothing is
    to be done. `id` identifies the event: the same decision made twice is stored once. `persistent` commands (endings)
    are tried until the log takes them.
    """

    category: str
    aggregate: str
    id: str
    decide: Callable[[S, float], Event | Refused | None]
    actor: str
    cause: str = ""
    traceparent: str | None = None
    persistent: bool = False


class Decided(Struct, frozen=True):
    """An event in the log. `duplicate`: it was there before, so this is what was decided then."""

    event: Event
    sequence: int
    duplicate: bool = False


class Shell:
    """Carries commands out on one log. `clock` gives Unix time."""

    def __init__(self, log_: Log, clock: Callable[[], float]) -> None:
        self._log = log_
        self._clock = clock

    async def execute(self, source: Source[S], command: Command[S]) -> Decided | Refused | None:
        """Load, decide, append; on a conflict from the start. Raises LogUnavailable, LogRefused unless persistent."""
        lock = source.lock(command.aggregate)
        if lock is None:
            return await self._until_done(source, command)
        async with lock:
            return await self._until_done(source, command)

    async def _until_done(self, source: Source[S], command: Command[S]) -> Decided | Refused | None:
        pause = 0.05
        doubtful_since: float | None = None
        while True:
            try:
                if doubtful_since is not None and self._clock() - doubtful_since > ID_KNOWN:
                    found = await self._stored(command, doubtful_since)
                    if found is not None:
                        return found
                return await self._attempt(source, command)
            except (LogUnavailable, LogRefused) as error:
                if not command.persistent:
                    raise
                doubtful_since = self._clock() if doubtful_since is None else doubtful_since
                log.warning("shell.append_again", event_id=command.id, error=type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 2.0)

    async def _stored(self, command: Command[S], since: float) -> Decided | None:
        """The event of a command that was appended without an answer so long ago that the log forgot its id."""
        scope = Scope((command.category,), command.aggregate)
        async with aclosing(self._log.read(scope=scope, since=since - APPENDED_BEFORE)) as events:
            async for event in events:
                if event.id == command.id:
                    return Decided(event.body, event.sequence, duplicate=True)
        return None

    async def _attempt(self, source: Source[S], command: Command[S]) -> Decided | Refused | None:
        conflicts, fresh = 0, False
        while True:
            state, sequence, stale = await source.load(command.aggregate, fresh=fresh)
            now = self._clock()
            decision = command.decide(state, now)
            if decision is None or isinstance(decision, Refused):
                if not stale:
                    return decision
                fresh = True  # what we remember may be old: never refuse on it
                continue
            try:
                return await self._append(source, command, decision, sequence, now)
            except TooLarge as error:
                if not stale:
                    return Refused(code="invalid_request", message=str(error))
                fresh = True
            except Conflict:
                conflicts, fresh = conflicts + 1, True
                if conflicts >= MAX_CONFLICTS and not command.persistent:
                    return Refused(
                        code="unavailable", message=f"{command.category} {command.aggregate!r} is contended; try again"
                    )
                if conflicts > 2:
                    await asyncio.sleep(random.uniform(0, 0.002 * conflicts))

    async def _append(
        self, source: Source[S], command: Command[S], event: Event, expected: int | None, now: float
    ) -> Decided:
        appended = await self._log.append(
            NewEvent(
                id=command.id,
                category=command.category,
                aggregate=command.aggregate,
                body=event,
                time=now,
                actor=command.actor,
                cause=command.cause,
                traceparent=command.traceparent,
            ),
            expected,
        )
        if not appended.duplicate:
            source.learn(command.aggregate, event, appended.sequence)
            return Decided(event, appended.sequence)
        recorded = await self._log.get(appended.sequence)
        if recorded is None:
            raise LogUnavailable(f"event {appended.sequence} is acknowledged but can't be read yet")
        return Decided(recorded.body, appended.sequence, duplicate=True)
