"""A thread's books: as its last event carries them, and as they follow from its whole history.

The two must agree. Serving a request needs the first, one read of one message; the second is the proof.
"""

from typing import assert_never

from msgspec import Struct, field, structs
from trunkline_events.thread import (
    Aborted,
    AnswerReused,
    AttemptFailed,
    Books,
    BudgetWarned,
    OpenAttempt,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadConfigured,
    ThreadEvent,
    ThreadFact,
    UsageRecorded,
)
from trunkline_events.usage import Usage

EMPTY = Books()
CATEGORIES = ("thread",)


def books_of(fact: ThreadEvent, sequence: int) -> Books:
    """The books after this event at `sequence`: the thread's state, where it is the thread's last event."""
    return Books(
        settled_nanos=fact.settled_nanos,
        reserved_nanos=fact.reserved_nanos,
        limit_nanos=fact.limit_nanos,
        window=fact.window,
        zone=fact.zone,
        period=fact.period,
        warn_at=fact.warn_at,
        warned=fact.warned,
        config_seq=sequence if isinstance(fact, ThreadConfigured) else fact.config_seq,
        tokens=fact.tokens,
        open=fact.open,
    )


class ModelUse(Struct, frozen=True, kw_only=True):
    """What one model has cost a thread."""

    attempts: int = 0
    tokens: Usage = Usage()
    cost_nanos: int = 0


class ThreadHistory(Struct, frozen=True, kw_only=True):
    """A thread as it follows from all its events: its books, and what each model did for it."""

    books: Books = EMPTY
    requests: int = 0
    models: dict[str, ModelUse] = field(default_factory=dict)


def evolve(state: ThreadHistory, fact: ThreadFact, sequence: int) -> ThreadHistory:
    """The history after this event, computed from what happened and not from the books the event carries.

    The window's turn is taken from the event: which period it fell in was decided by its time.
    """
    books = state.books
    if fact.period != books.period or fact.window != books.window or fact.zone != books.zone:
        books = structs.replace(
            books, settled_nanos=0, warned=False, period=fact.period, window=fact.window, zone=fact.zone
        )
    match fact:
        case ThreadConfigured():
            books = structs.replace(
                books, limit_nanos=fact.limit_nanos, warn_at=fact.warn_at, warned=fact.warned, config_seq=sequence
            )
            return structs.replace(state, books=books)
        case RouteDecided():
            attempt = OpenAttempt(request_id=fact.request_id, reserve_nanos=fact.reserve_nanos)
            books = structs.replace(
                books,
                reserved_nanos=books.reserved_nanos + fact.reserve_nanos,
                open={**books.open, fact.attempt_id: attempt},
            )
            return structs.replace(state, books=books, requests=state.requests + (fact.attempt == 1))
        case UsageRecorded() | Aborted():
            books = _closed(books, fact.attempt_id, fact.cost_nanos, fact.usage)
            return structs.replace(state, books=books, models=_used(state, fact.model, fact.usage, fact.cost_nanos))
        case Orphaned():
            books = _closed(books, fact.attempt_id, fact.cost_nanos, Usage())
            return structs.replace(state, books=books, models=_used(state, fact.model, Usage(), fact.cost_nanos))
        case AttemptFailed():
            return structs.replace(state, books=_closed(books, fact.attempt_id, 0, Usage()))
        case RequestRefused():
            return structs.replace(state, books=books)
        case AnswerReused():
            return structs.replace(state, books=books, requests=state.requests + 1)
        case BudgetWarned():
            return structs.replace(state, books=structs.replace(books, warned=True))
        case _:  # pragma: no cover
            assert_never(fact)


def _closed(books: Books, attempt_id: str, cost: int, usage: Usage) -> Books:
    attempt = books.open.get(attempt_id)
    return structs.replace(
        books,
        settled_nanos=books.settled_nanos + cost,
        reserved_nanos=books.reserved_nanos - (attempt.reserve_nanos if attempt else 0),
        tokens=books.tokens + usage,
        open={other: value for other, value in books.open.items() if other != attempt_id},
    )


def _used(state: ThreadHistory, model: str, usage: Usage, cost: int) -> dict[str, ModelUse]:
    use = state.models.get(model, ModelUse())
    use = ModelUse(attempts=use.attempts + 1, tokens=use.tokens + usage, cost_nanos=use.cost_nanos + cost)
    return {**state.models, model: use}
