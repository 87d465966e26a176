"""The ledger of a budget above the thread: slices are leased, reported on, and given back. Pure, in nano-dollars.

Invariant after every decision: settled + reserved ≤ limit, where reserved is what slices of the running period hold.
A slice is spent in the period it was leased in, also where a request of it ends in the next.
"""

from typing import Any

from msgspec import Struct, structs
from trunkline_events.budget import (
    BudgetRefused,
    BudgetReserved,
    BudgetSet,
    BudgetSettled,
    ScopeBooks,
    ScopeWarned,
    Slice,
)
from trunkline_events.refusal import Refused

from trunkline_actors import money
from trunkline_actors.windows import period_of, zone_problem

AHEAD = 32
"""How many requests like the one at hand a slice is leased for, as long as nobody else needs the money."""

OVER = "over"
"""The period of slices from before another window or zone: names of periods may come again, this one never does."""


class Lease(Struct, frozen=True, kw_only=True):
    """Ask for more money for one's slice, which may not exist yet.

    `spent_nanos` is all that was ever spent of the slice, `granted_nanos` what its holder takes it for. The request at
    hand takes `needed_nanos` of what is free in it, which is `free_nanos` so far, would like `wanted_nanos`, and can do
    with `floor_nanos` at worst. `last_word`: everybody was asked to give back what they don't use, so that what is not
    there now is refused or waited for. `ahead` is how many requests to lease for.
    """

    slice: str
    holder: str
    request_id: str
    thread: str
    spent_nanos: int
    free_nanos: int
    needed_nanos: int
    wanted_nanos: int
    floor_nanos: int
    granted_nanos: int = 0
    last_word: bool = False
    ahead: int = AHEAD


def turn(books: ScopeBooks, now: float) -> ScopeBooks:
    """The books now: what was settled and leased in an earlier period no longer counts. No period is turned back."""
    period = period_of(books.window, now, books.zone)
    if period <= books.period:
        return books
    return _with(structs.replace(books, period=period, settled_nanos=0, warned=False), books.slices)


def _with(books: ScopeBooks, slices: dict[str, Slice]) -> ScopeBooks:
    held = sum(max(0, one.granted_nanos - one.spent_nanos) for one in slices.values() if one.period == books.period)
    return structs.replace(books, slices=slices, reserved_nanos=held)


def fields(books: ScopeBooks) -> dict[str, Any]:
    """The books as keyword arguments of the event that carries them."""
    return {name: getattr(books, name) for name in ScopeBooks.__struct_fields__}


def account(scope: str, books: ScopeBooks) -> money.Account:
    """The budget as a caller is told of it."""
    return money.Account(
        scope=scope,
        limit_nanos=books.limit_nanos or 0,
        settled_nanos=books.settled_nanos,
        reserved_nanos=books.reserved_nanos,
        window=books.window,
        zone=books.zone,
    )


def configure(
    books: ScopeBooks, request_id: str, budget: money.Budget, team: str | None, reason: str | None, now: float
) -> BudgetSet | Refused:
    """Set a budget. Another window or zone begins a new period, in which nothing is spent yet.

    What is leased stays reserved, and is spent in the new period: its holders go on to use it.
    """
    books = turn(books, now)
    if zone_problem(budget.time_zone) is None and (budget.window, budget.time_zone) != (books.window, books.zone):
        period = period_of(budget.window, now, budget.time_zone)
        moved = {
            name: structs.replace(one, period=period if one.period == books.period else OVER)
            for name, one in books.slices.items()
        }
        books = structs.replace(books, window=budget.window, zone=budget.time_zone, period=period, settled_nanos=0)
        books = _with(books, moved)
    limit = money.limit_of(budget, books.settled_nanos + books.reserved_nanos)
    if isinstance(limit, Refused):
        return limit
    after = structs.replace(books, limit_nanos=limit, warn_at=budget.warn_at, warned=False, team=team)
    return BudgetSet(request_id=request_id, reason=reason, **fields(after))


def lease(scope: str, books: ScopeBooks, ask: Lease, now: float) -> BudgetReserved | BudgetRefused | Refused | None:
    """Grant what is asked for, and more where there is plenty. None: this slice can't be used any more.

    Waiting: others hold what is missing, or what is there is granted already and has to do. A refusal for good is an
    event, and only said as the `last_word`.
    """
    books = turn(books, now)
    known = books.slices.get(ask.slice)
    own = known or Slice(holder=ask.holder, period=books.period, granted_nanos=0)
    limit = books.limit_nanos
    if own.frozen or own.period != books.period or limit is None:
        return None
    if known is None and (ask.granted_nanos or ask.spent_nanos):
        return None  # it was closed, by a keeper perhaps, and what it cost is settled
    reported = max(0, ask.spent_nanos - own.spent_nanos)
    books = _reported(books, ask.slice, own, reported)
    own = books.slices[ask.slice]
    available = limit - books.settled_nanos - books.reserved_nanos
    missing, wished = ask.needed_nanos - ask.free_nanos, ask.wanted_nanos - ask.free_nanos
    if available <= 0 or available < missing or (available < wished and not ask.last_word):
        short = money.exceeded(account(scope, books), ask.needed_nanos, [], now)
        less_would_do = books.settled_nanos + ask.floor_nanos <= limit
        if not ask.last_word or missing <= 0 or isinstance(short, money.Waiting) or (less_would_do and not reported):
            return short
        if not less_would_do:
            if known is None:  # a refusal makes no slice
                books = _with(books, {name: one for name, one in books.slices.items() if name != ask.slice})
            return BudgetRefused(
                request_id=ask.request_id,
                thread=ask.thread,
                needed_nanos=ask.needed_nanos,
                slice=ask.slice,
                spent_nanos=reported,
                **fields(books),
            )
        # Else it gets what there is, and what it takes at least is known from what is reported on this occasion.
    fair = available // (2 * len({one.holder for one in books.slices.values()} | {ask.holder}))
    amount = max(0, min(available, max(wished, min(ask.wanted_nanos * ask.ahead, fair))))
    granted = structs.replace(own, granted_nanos=own.granted_nanos + amount)
    after = _with(books, {**books.slices, ask.slice: granted})
    return BudgetReserved(slice=ask.slice, amount_nanos=amount, spent_nanos=reported, **fields(after))


def _reported(books: ScopeBooks, name: str, own: Slice, spent: int) -> ScopeBooks:
    """What cost more than was granted is granted afterwards, so that what is granted next is there to be spent."""
    settled = books.settled_nanos + (spent if own.period == books.period else 0)
    spent_nanos = own.spent_nanos + spent
    spent_now = structs.replace(own, spent_nanos=spent_nanos, granted_nanos=max(own.granted_nanos, spent_nanos))
    return _with(structs.replace(books, settled_nanos=settled), {**books.slices, name: spent_now})


class Settle(Struct, frozen=True, kw_only=True):
    """Say what was spent of a slice in all, and keep only so much of the rest. `closed`: it is not used any more."""

    slice: str
    spent_nanos: int
    keep_nanos: int
    closed: bool = False


def settle(books: ScopeBooks, command: Settle, now: float, *, keeper: bool = False) -> BudgetSettled | None:
    """Report on a slice and give the rest back. None where there is nothing to say, or where it is not ours to say.

    A frozen slice is its keeper's, and only a keeper's.
    """
    books = turn(books, now)
    own = books.slices.get(command.slice)
    if own is None or own.frozen != keeper:
        return None
    spent = max(0, command.spent_nanos - own.spent_nanos)
    books = _reported(books, command.slice, own, spent)
    own = books.slices[command.slice]
    granted = min(own.granted_nanos, own.spent_nanos + (0 if command.closed else command.keep_nanos))
    returned = own.granted_nanos - granted
    if not spent and not returned and not command.closed:
        return None
    others = {name: one for name, one in books.slices.items() if name != command.slice}
    kept = {} if command.closed else {command.slice: structs.replace(own, granted_nanos=granted)}
    after = _with(books, {**others, **kept})
    return BudgetSettled(
        slice=command.slice,
        spent_nanos=spent,
        returned_nanos=returned,
        closed=command.closed,
        **fields(after),
    )


def freeze(books: ScopeBooks, name: str, now: float) -> BudgetSettled | None:
    """The holder is taken for dead: what it takes from this slice from here on is void."""
    books = turn(books, now)
    own = books.slices.get(name)
    if own is None or own.frozen:
        return None
    after = _with(books, {**books.slices, name: structs.replace(own, frozen=True)})
    return BudgetSettled(slice=name, spent_nanos=0, returned_nanos=0, **fields(after))


def warn(books: ScopeBooks) -> ScopeWarned | None:
    """Tell, once in each window, that the share `warn_at` of the limit is spent."""
    if not money.to_warn(books.limit_nanos, books.settled_nanos, books.warn_at, warned=books.warned):
        return None
    return ScopeWarned(**fields(structs.replace(books, warned=True)))
