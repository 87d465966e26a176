"""The ledger of one request: reserve before dispatch, settle after, never exceed. Pure, in nano-dollars.

A request must fit its thread's budget and what its router holds of every budget above (`slices`).
Invariant after every decision: settled + reserved ≤ limit, as far as the provider honours `max_tokens`.
"""

from typing import Any

from msgspec import Struct, structs
from trunkline_events.money import BadAmount, nanos_from_usd, usd_from_nanos
from trunkline_events.rate import Rate
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, BudgetWarned, OpenAttempt, Window
from trunkline_events.times import format_time
from trunkline_events.usage import Usage

from trunkline_actors import pricing
from trunkline_actors.windows import period_of, resets_at, zone_problem

MAX_OPEN = 64
"""Attempts that may run at once in one thread, so that its last event stays small."""

UNBOUNDED_OUTPUT = 32_768
"""Output tokens reserved for where neither the caller nor the model sets a bound."""

USEFUL_OUTPUT = 256
"""A clamped answer gets at least so many tokens while money that others have reserved may yet come back."""

THREAD = "thread"
"""The name of a thread's own budget, among the scopes."""


class Short(Refused, frozen=True, kw_only=True):
    """The budget `scope` lacks money for a request that takes `needed_nanos` at least."""

    scope: str
    needed_nanos: int = 0


class Exceeded(Short, frozen=True, kw_only=True):
    """It is not there, also if everything that is reserved came back."""


class Waiting(Short, frozen=True, kw_only=True):
    """Not yet: only what others have reserved stands in the way. What the caller is told if it stays so."""


class Underfunded(Short, frozen=True, kw_only=True):
    """This process holds too little of it, and may lease more.

    `wanted_nanos` would do better than what is needed; `floor_nanos` is the very least, once all else is spent.
    """

    wanted_nanos: int
    floor_nanos: int


class Fund(Struct, frozen=True, kw_only=True):
    """What this process may spend of a budget above the thread: `free_nanos`, from its slice.

    `possible_nanos` is what the budget could give if everything reserved came back. `answer`: more was asked for and
    not given, and this is why.
    """

    scope: str
    slice: str
    free_nanos: int
    possible_nanos: int
    answer: Refused | None = None


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
    funds: tuple[Fund, ...] = ()

    def affordable(self, nanos: int) -> int:
        """The most output tokens of each choice that so much money pays for; negative: not even the input."""
        return pricing.affordable_tokens(self.rate, self.input_bound, nanos) // self.choices

    def worst_case(self, tokens: int) -> int:
        """What the attempt costs at most with so many output tokens of each choice."""
        return pricing.worst_case(self.rate, self.input_bound, tokens * self.choices)


class Reserved(Struct, frozen=True, kw_only=True):
    """The books with the reservation in them. `max_tokens`, where not None, must be sent upstream."""

    books: Books
    reserve_nanos: int
    max_tokens: int | None


def turn(books: Books, now: float) -> Books:
    """The books now: what was settled in an earlier period no longer counts.

    A process whose clock is slow turns no period back: what was settled since would be forgotten.
    """
    period = period_of(books.window, now, books.zone)
    return books if period <= books.period else structs.replace(books, period=period, settled_nanos=0, warned=False)


def wanted_output(max_tokens: int | None, model_max: int | None) -> int:
    """The output tokens that each answer may come to: as the request says, else the model, else as we do."""
    return max_tokens or model_max or UNBOUNDED_OUTPUT


def reserve(books: Books, command: Reserve, now: float) -> Reserved | Refused:
    """Set the worst case of an attempt aside, its `max_tokens` clamped where that is allowed; or say what is missing.

    Waiting: others' reservations stand in the way. Underfunded: the slice is too small. Else it can't be done.
    """
    books = turn(books, now)
    wanted = wanted_output(command.max_tokens, command.model_max) if command.generates else 0
    granted = _granted(books, command, wanted, now)
    if isinstance(granted, Refused):
        return granted
    if len(books.open) >= MAX_OPEN:
        return Waiting(
            scope=THREAD,
            code="unavailable",
            message=f"{MAX_OPEN} requests of this thread are running already; send it again when one has ended",
            metadata={"open": len(books.open)},
        )
    amount = command.worst_case(granted)
    attempt = OpenAttempt(request_id=command.request_id, reserve_nanos=amount)
    # Where money is limited every call is bounded, so that the reservation is the worst case indeed.
    limited = books.limit_nanos is not None or command.max_cost_nanos is not None or command.funds
    bound = command.generates and (limited or command.max_tokens is not None)
    return Reserved(
        books=structs.replace(
            books, reserved_nanos=books.reserved_nanos + amount, open={**books.open, command.attempt_id: attempt}
        ),
        reserve_nanos=amount,
        max_tokens=granted if bound else None,
    )


def _granted(books: Books, command: Reserve, wanted: int, now: float) -> int | Refused:
    """How many output tokens every budget affords: all that are wanted, or fewer where clamping is allowed."""
    granted, least = wanted, min(USEFUL_OUTPUT, wanted) if command.clamp else wanted
    if command.max_cost_nanos is not None:
        granted = min(granted, command.affordable(command.max_cost_nanos))
        least = min(least, max(granted, min(1, wanted))) if command.clamp else least
        if granted < least:
            return _over_own_limit(command.worst_case(least))
    useful = least
    if command.clamp:
        for possible in _possible(books, command.funds):
            least = min(least, max(command.affordable(possible), min(1, wanted)))
    if books.limit_nanos is not None:
        affordable = command.affordable(books.limit_nanos - books.settled_nanos - books.reserved_nanos)
        if affordable < least:
            return over_budget(books, command.worst_case(least), now)
        granted = min(granted, affordable)
    for fund in command.funds:
        affordable = command.affordable(fund.free_nanos)
        if affordable < least or (affordable < granted and fund.answer is None):
            needed = command.worst_case(least)
            if fund.answer is not None and not _takes_less(fund.answer, needed, command.worst_case(useful)):
                return fund.answer
            return Underfunded(
                scope=fund.scope,
                code="budget_exceeded",
                message=f"this process holds too little of the budget {fund.scope}",
                needed_nanos=needed,
                wanted_nanos=command.worst_case(granted),
                floor_nanos=command.worst_case(min(1, wanted)) if command.clamp else needed,
            )
        granted = min(granted, affordable)
    return granted


def _possible(books: Books, funds: tuple[Fund, ...]) -> list[int]:
    """What each budget could give if everything reserved came back."""
    own = [] if books.limit_nanos is None else [books.limit_nanos - books.settled_nanos]
    return own + [fund.possible_nanos for fund in funds]


def _takes_less(answer: Refused, needed: int, useful: int) -> bool:
    """Whether an answer was for more than what is asked for now, and so says nothing of it.

    It was for another candidate, or for this one before more was known to be spent. The latter waits as it was told,
    and does not ask again for a little less: `useful` is what it takes while enough may come back.
    """
    if isinstance(answer, Exceeded):
        return needed < answer.needed_nanos
    return isinstance(answer, Waiting) and useful < answer.needed_nanos


def _over_own_limit(needed: int) -> Refused:
    return Refused(
        code="no_route",
        message=f"this needs up to ${usd_from_nanos(needed)}, more than its max_cost_usd",
        param="route.max_cost_usd",
        retryable=False,
    )


def over_budget(books: Books, needed: int, now: float) -> Short:
    """Why the thread's money is not there. Waiting, where only reservations stand in the way: they settle for less."""
    account = Account(
        scope=THREAD,
        limit_nanos=books.limit_nanos or 0,
        settled_nanos=books.settled_nanos,
        reserved_nanos=books.reserved_nanos,
        window=books.window,
        zone=books.zone,
    )
    holders = sorted({attempt.request_id for attempt in books.open.values()})
    return exceeded(account, needed, holders, now)


class Account(Struct, frozen=True, kw_only=True):
    """A budget as a caller is told of it."""

    scope: str
    limit_nanos: int
    settled_nanos: int
    reserved_nanos: int
    window: Window
    zone: str


MOST_NAMED = 20
"""Requests that an error names as those that hold the money."""


def exceeded(account: Account, needed: int, holders: list[str], now: float) -> Short:
    """What a caller is told whose request needs more than a budget has free; Waiting where that may change soon."""
    reset = resets_at(account.window, now, account.zone)
    fields: dict[str, Any] = {
        "scope": account.scope,
        "needed_nanos": needed,
        "code": "budget_exceeded",
        "message": (
            f"this needs up to ${usd_from_nanos(needed)}, but of the budget {account.scope!r} of "
            f"${usd_from_nanos(account.limit_nanos)} ${usd_from_nanos(account.settled_nanos)} is spent and "
            f"${usd_from_nanos(account.reserved_nanos)} reserved"
            + ("" if reset is None else f"; it starts again at {format_time(reset)}")
        ),
        "metadata": {
            "budget": account.scope,
            "limit_usd": usd_from_nanos(account.limit_nanos),
            "settled_usd": usd_from_nanos(account.settled_nanos),
            "reserved_usd": usd_from_nanos(account.reserved_nanos),
            "needed_usd": usd_from_nanos(needed),
            "window": account.window,
            "resets_at": None if reset is None else format_time(reset),
            "requests": holders[:MOST_NAMED],
            "more_requests": max(0, len(holders) - MOST_NAMED),
        },
    }
    if account.settled_nanos + needed <= account.limit_nanos:
        return Waiting(retryable=True, **fields)
    return Exceeded(retryable=False, **fields)


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
    return structs.asdict(books) if type(books) is Books else {name: getattr(books, name) for name in _FIELDS}


_FIELDS = Books.__struct_fields__


def to_warn(limit_nanos: int | None, settled_nanos: int, warn_at: float | None, *, warned: bool) -> bool:
    """Whether the share of the limit at which somebody wants to be told has just been passed."""
    return not warned and warn_at is not None and limit_nanos is not None and settled_nanos >= warn_at * limit_nanos


def warn(books: Books, request_id: str) -> BudgetWarned | None:
    """Tell, once in each window, that the share `warn_at` of the limit is spent."""
    if not to_warn(books.limit_nanos, books.settled_nanos, books.warn_at, warned=books.warned):
        return None
    return BudgetWarned(request_id=request_id, **fields(structs.replace(books, warned=True)))


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit in US dollars for each window of time; no limit where it is null.

    Windows turn at midnight in `time_zone`. `warn_at` is the share of the limit, above 0 and at most 1, whose spending
    is told by an event.
    """

    limit_usd: str | None = None
    window: Window = "none"
    time_zone: str = "UTC"
    warn_at: float | None = None


def limit_of(budget: Budget, held_nanos: int) -> int | Refused | None:
    """The limit in nano-dollars. Less than what is spent and reserved already would be exceeded as it is set."""
    if problem := zone_problem(budget.time_zone):
        return Refused(code="invalid_request", message=problem, param="budget.time_zone")
    if budget.warn_at is not None and not 0 < budget.warn_at <= 1:
        return Refused(
            code="invalid_request", message="warn_at is a share of the limit, such as 0.8", param="budget.warn_at"
        )
    try:
        limit = None if budget.limit_usd is None else nanos_from_usd(budget.limit_usd)
    except BadAmount as error:
        return Refused(code="invalid_request", message=str(error), param="budget.limit_usd")
    if limit is not None and limit < held_nanos:
        return Refused(
            code="conflict",
            message=f"${usd_from_nanos(held_nanos)} is spent or reserved already; the limit can't be less",
            param="budget.limit_usd",
        )
    return limit
