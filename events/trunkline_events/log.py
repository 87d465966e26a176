"""The log, as everything else sees it: append, load, follow. Two implementations pass the same contract suite.

An aggregate is one subject. `expected` is the sequence of the aggregate's last event as the decision knew it (0: no
event yet, None: the decision did not depend on it); an append that expects something else is refused with Conflict.
Sequences count the whole log from 1, so an aggregate's own are increasing but not consecutive.

Two clocks: an event's `time` is that of the process that decided it; where a time names a place in the log (`since`,
`position_at`), it is the log's own clock as it stored the event, a moment later, to the microsecond. Only that one
grows with the sequence, so only by it does a time name one place.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from trunkline_events import subjects
from trunkline_events.codes import NO_ROOM
from trunkline_events.envelope import NewEvent, RecordedEvent


class LogError(Exception):
    """The log did not do what was asked."""


class Conflict(LogError):
    """Somebody else appended to this aggregate first. Read its last event, decide again, append under the same id."""

    def __init__(self, subject: str, expected: int) -> None:
        super().__init__(f"{subject} is not at sequence {expected} any more; load it and decide again")
        self.subject = subject
        self.expected = expected


class LogUnavailable(LogError):
    """The log did not acknowledge in time; the append may or may not be stored.

    Append the same event again, under the same id, when the log is back: it is stored once.
    """


class LogMissing(LogUnavailable):
    """There is no log on this bus yet. Start a gateway with `trunkline up`."""

    def __init__(self) -> None:
        super().__init__("this bus has no log yet; start a gateway with `trunkline up`")


class LogRefused(LogError):
    """The log answered that it will not store this, and nothing is stored. `code` is JetStream's. Look at its disk."""

    def __init__(self, code: int, description: str) -> None:
        advice = (
            "the log's disk is full or at the server's limit: free some space, or raise max_file_store"
            if code in NO_ROOM
            else "check the server's disk"
        )
        super().__init__(f"the log refused the append: {description} (JetStream error {code}); {advice}")
        self.code = code

    @property
    def no_room(self) -> bool:
        """Whether storage is what it lacks."""
        return self.code in NO_ROOM


class TooLarge(LogError):
    """An event is larger than the server takes; nothing is stored. Keep less in it, or raise its `max_payload`."""

    def __init__(self, event_id: str, size: int, limit: int) -> None:
        super().__init__(
            f"event {event_id} has {size:,} bytes, the server takes {limit:,}; "
            "keep less in it, or raise the server's max_payload"
        )
        self.size = size
        self.limit = limit


class Appended(Struct, frozen=True):
    """Where the event is. `duplicate`: an event of this id was there before, at `sequence`; this one was not stored."""

    sequence: int
    duplicate: bool = False


class Scope(Struct, frozen=True):
    """Which events a reader wants: all, whole categories, or one aggregate of some categories or of any."""

    categories: tuple[str, ...] = ()
    aggregate: str | None = None

    def filters(self) -> list[str]:
        """The subjects to read, below `trunkline.log`."""
        if self.aggregate is not None:
            return [subjects.log_subject(category, self.aggregate) for category in self.categories or ("*",)]
        return [subjects.category_filter(category) for category in self.categories]

    def covers(self, category: str, aggregate: str) -> bool:
        """Whether an event of this aggregate is wanted."""
        if self.categories and category not in self.categories:
            return False
        return self.aggregate is None or aggregate == self.aggregate


ALL = Scope()

Handler = Callable[[RecordedEvent], Awaitable[None] | None]
"""Told of each event in order. What it raises ends nothing: it is reported, and the next event follows."""


class Follower(Protocol):
    """A reader that keeps up with the log: every event of its scope, once, in order, across reconnects and restarts."""

    @property
    def position(self) -> int:
        """The sequence of the last event handled, or where it started."""
        ...

    async def caught_up(self) -> None:
        """Return when everything that was in the log when the follower started has been handled."""
        ...

    async def reached(self, sequence: int) -> None:
        """Return when the event at `sequence`, one of this scope, has been handled."""
        ...

    async def stop(self) -> None:
        """Handle nothing more."""
        ...


class Log(Protocol):
    """An append-only sequence of events."""

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        """Store one event for good. Raises Conflict, LogUnavailable, LogRefused, TooLarge.

        The expectation is checked before the id: an event that is there already may answer Conflict, and then, appended
        again under the same id with the expectation brought up to date, `duplicate` with its sequence.
        Many appends may be under way at once; callers that care about their order chain them by `expected`.
        """
        ...

    async def last(self, category: str, aggregate: str) -> RecordedEvent | None:
        """The aggregate's last event, from the leader: never stale."""
        ...

    async def glance(self, category: str, aggregate: str) -> RecordedEvent | None:
        """The same from any replica, which may be behind: quick, and good enough where an append will tell."""
        ...

    async def get(self, sequence: int) -> RecordedEvent | None:
        """The event at this sequence."""
        ...

    async def end(self, scope: Scope = ALL) -> int:
        """The sequence of the last event in scope, 0 where there is none."""
        ...

    def read(
        self, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """The events in scope after a sequence and since a Unix time, up to the end of the log as it is now.

        Both hold where both are given. A `since` to come is the end of the log.
        """
        ...

    async def follow(
        self, handler: Handler, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> Follower:
        """Hand each event in scope to `handler`, from after a sequence and since a Unix time, until stopped.

        Both hold where both are given. A `since` to come is the end of the log as it is now.
        """
        ...

    async def position_at(self, moment: float) -> int:
        """The sequence of the last event that was stored at or before this Unix time, 0 where there is none."""
        ...

    def last_of_each(
        self, category: str, up_to: int, *, only: Collection[str] | None = None, after: str = ""
    ) -> AsyncGenerator[RecordedEvent, None]:
        """The last event of each aggregate of a category as of sequence `up_to`, in the order of the aggregates' ids.

        What is past the end means the end of the log as it is now. `only` asks for these aggregates and no others,
        `after` for those whose ids follow this one. All answers are of one position, however long reading them takes.
        """
        ...

    async def aggregates(self, category: str) -> list[str]:
        """The ids of all aggregates of a category that have an event, sorted."""
        ...


async def load(log: Log, category: str, aggregate: str) -> Sequence[RecordedEvent]:
    """All events of one aggregate, oldest first."""
    return [event async for event in log.read(scope=Scope((category,), aggregate))]
