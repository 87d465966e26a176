"""A thread's ledger: reserve before dispatch, settle after, never exceed. Pure, in nano-dollars.

Invariant after every decision: settled + reserved ≤ limit, as far as the provider honours `max_tokens`.
"""

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct, structs
from trunkline_events.money import BadAmount, nanos_from_usd, usd_from_nanos
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, OpenAttempt, ThreadConfigured, Window
from trunkline_events.usage import Usage

from trunkline_actors import pricing
from trunkline_actors.pricing import Rate

MAX_OPEN = 64
"""Attempts that may run at once in one thread, so that its last event stays small."""

UNBOUNDED_OUTPUT = 32_768
"""Output tokens reserved for where neither the caller nor the model sets a bound."""


class Reserve(Struct, frozen=True, kw_only=True):
    """Ask for room for one attempt.

    `max_tokens` is what the caller set, `model_max` what the model can do; `generates` is false for embeddings, which
    have no output; `choices` is how many answers are generated; `max_cost_nanos` is the caller's own limit.
    """

    attempt_id: str
    request_id: str
    rate: Rate
    input_bound: int
    max_tokens: int | None
    model_max: int | None
    clamp: bool
    generates: bool = True
    choices: int = 1
    max_cost_nanos: int | None = None


class Reserved(Struct, frozen=True, kw_only=True):
    """The books with the reservation in them. `max_tokens`, where not None, must be sent upstream."""

    books: Books
    reserve_nanos: int
    max_tokens: int | None


def period_of(window: Window, now: float) -> str:
    """The name of the window's period that `now` falls in, in UTC."""
    if window == "none":
        return ""
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    return day if window == "day" else day[:7]


def turn(books: Books, now: float) -> Books:
    """The books now: what was settled in an earlier period no longer counts.

    A process whose clock is slow turns no period back: what was settled since would be forgotten.
    """
    period = period_of(books.window, now)
    return books if period <= books.period else structs.replace(books, period=period, settled_nanos=0)


def reserve(books: Books, command: Reserve, now: float) -> Reserved | Refused:
    """Set the worst case of an attempt aside, its `max_tokens` clamped where that is allowed, or refuse."""
    books = turn(books, now)
    if len(books.open) >= MAX_OPEN:
        return Refused(
            code="unavailable",
            message=f"{MAX_OPEN} requests of this thread are running already; send it again when one has ended",
            metadata={"open": len(books.open)},
        )
    wanted = (command.max_tokens or command.model_max or UNBOUNDED_OUTPUT) if command.generates else 0
    least = min(1, wanted) if command.clamp else wanted
    granted = wanted
    available = _available(books, command)
    if available is not None:
        granted = min(
            wanted, pricing.affordable_tokens(command.rate, command.input_bound, available) // command.choices
        )
        if granted < least:
            return _too_dear(books, command, least)
    amount = _worst_case(command, granted)
    attempt = OpenAttempt(request_id=command.request_id, reserve_nanos=amount)
    # Where money is limited every call is bounded, so that the reservation is the worst case indeed.
    bound = command.generates and (available is not None or command.max_tokens is not None)
    return Reserved(
        books=structs.replace(
            books, reserved_nanos=books.reserved_nanos + amount, open={**books.open, command.attempt_id: attempt}
        ),
        reserve_nanos=amount,
        max_tokens=granted if bound else None,
    )


def _available(books: Books, command: Reserve) -> int | None:
    """What this attempt may cost at most; None where nothing limits it."""
    limits = [] if command.max_cost_nanos is None else [command.max_cost_nanos]
    if books.limit_nanos is not None:
        limits.append(books.limit_nanos - books.settled_nanos - books.reserved_nanos)
    return min(limits, default=None)


def _worst_case(command: Reserve, tokens: int) -> int:
    return pricing.worst_case(command.rate, command.input_bound, tokens * command.choices)


def _too_dear(books: Books, command: Reserve, least: int) -> Refused:
    needed = _worst_case(command, least)
    if command.max_cost_nanos is not None and needed > command.max_cost_nanos:
        return Refused(
            code="no_route",
            message=f"this needs up to ${usd_from_nanos(needed)}, more than its max_cost_usd",
            param="route.max_cost_usd",
            retryable=False,
        )
    return over_budget(books, needed)


def over_budget(books: Books, needed: int) -> Refused:
    """Why the money is not there. Retryable where only reservations stand in the way: they settle for less."""
    limit = books.limit_nanos or 0
    holders = sorted({attempt.request_id for attempt in books.open.values()})
    return Refused(
        code="budget_exceeded",
        message=(
            f"this needs up to ${usd_from_nanos(needed)}, but of the thread's budget of ${usd_from_nanos(limit)} "
            f"${usd_from_nanos(books.settled_nanos)} is spent and ${usd_from_nanos(books.reserved_nanos)} reserved"
        ),
        retryable=books.settled_nanos + needed <= limit,
        metadata={
            "budget": "thread",
            "limit_usd": usd_from_nanos(limit),
            "settled_usd": usd_from_nanos(books.settled_nanos),
            "reserved_usd": usd_from_nanos(books.reserved_nanos),
            "needed_usd": usd_from_nanos(needed),
            "window": books.window,
            "requests": holders,
        },
    )


def close(books: Books, attempt_id: str, cost: int, usage: Usage, now: float) -> Books | None:
    """The books with an attempt ended at this cost; None where it isn't open: it has ended before."""
    attempt = books.open.get(attempt_id)
    if attempt is None:
        return None
    books = turn(books, now)
    return structs.replace(
        books,
        settled_nanos=books.settled_nanos + cost,
        reserved_nanos=books.reserved_nanos - attempt.reserve_nanos,
        tokens=books.tokens + usage,
        open={other: value for other, value in books.open.items() if other != attempt_id},
    )


def fields(books: Books) -> dict[str, Any]:
    """The books as keyword arguments of the event that carries them."""
    return {name: getattr(books, name) for name in _FIELDS}


_FIELDS = Books.__struct_fields__


def configure(
    books: Books, request_id: str, limit_usd: str | None, window: Window, reason: str | None, now: float
) -> ThreadConfigured | Refused:
    """Set a thread's budget. A limit below what is spent and reserved already would be exceeded as it is set."""
    books = turn(books, now)
    if window != books.window:
        books = structs.replace(books, window=window, period=period_of(window, now), settled_nanos=0)
    try:
        limit = None if limit_usd is None else nanos_from_usd(limit_usd)
    except BadAmount as error:
        return Refused(code="invalid_request", message=str(error), param="budget.limit_usd")
    held = books.settled_nanos + books.reserved_nanos
    if limit is not None and limit < held:
        return Refused(
            code="conflict",
            message=f"${usd_from_nanos(held)} is spent or reserved already; the limit can't be less",
            param="budget.limit_usd",
        )
    after = structs.replace(books, limit_nanos=limit)
    return ThreadConfigured(request_id=request_id, reason=reason, **fields(after))
