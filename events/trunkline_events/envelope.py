"""An event to append and an event recorded: two types, so that an unsaved event can't claim a position."""

from typing import Protocol

from msgspec import Struct

from trunkline_events import subjects


class Event(Protocol):
    """The body of an event: a frozen msgspec struct with a registered, versioned name as its tag."""

    @property
    def __struct_fields__(self) -> tuple[str, ...]: ...


class Unknown(Struct, frozen=True):
    """An event whose type this version does not know, or whose body it can't read. Readers count and skip it."""

    name: str
    data: bytes
    problem: str


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event to append.

    `id` identifies the event for ever: appending it twice stores it once. `actor` says who decided, `cause` names the
    event or request that led to it, `time` is Unix time in seconds.
    """

    id: str
    category: str
    aggregate: str
    body: Event
    time: float
    actor: str
    cause: str = ""
    traceparent: str | None = None


class RecordedEvent(Struct, frozen=True, kw_only=True):
    """An event as the log holds it: `sequence` is its position, `time` Unix time in seconds."""

    sequence: int
    id: str
    category: str
    aggregate: str
    type: str
    body: Event | Unknown
    time: float
    actor: str
    cause: str
    traceparent: str | None = None

    @property
    def subject(self) -> str:
        """Where it was appended."""
        return subjects.log_subject(self.category, self.aggregate)
