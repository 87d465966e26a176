"""The facts of a budget above the thread: of an API key, a team, or the whole gateway.

Such a budget is spent from *slices*. A router leases a slice, serves any number of requests from it, and says now and
then what they cost: so one busy budget needs no append for each request. What is leased counts as reserved, so it can't
be exceeded. Every event carries the budget as it stands after it, so that the last event is the state.
"""

from msgspec import Struct, field

from trunkline_events.thread import Window

GATEWAY = "gateway"
"""The scope of everything that is served."""


class Slice(Struct, frozen=True, kw_only=True):
    """Money in the hands of one process, `holder`, for requests of one `period` of the budget's window.

    Of `granted_nanos` in all, `spent_nanos` are reported as spent; the rest is reserved. `frozen`: the holder is taken
    for dead. What it decided before counts; what it takes from this slice later in the log is void, and never sent.
    """

    holder: str
    period: str
    granted_nanos: int
    spent_nanos: int = 0
    frozen: bool = False


class ScopeBooks(Struct, frozen=True, kw_only=True):
    """A budget after an event: settled + reserved ≤ limit, at every event.

    Money leased in one period of the window is spent in that period, also where a request ends in the next:
    `settled_nanos` and `reserved_nanos` are those of the running `period`. `team`: whose budget that of a key
    is a part of.
    """

    limit_nanos: int | None = None
    window: Window = "none"
    zone: str = "UTC"
    period: str = ""
    warn_at: float | None = None
    warned: bool = False
    settled_nanos: int = 0
    reserved_nanos: int = 0
    team: str | None = None
    slices: dict[str, Slice] = field(default_factory=dict)


class BudgetEvent(ScopeBooks, frozen=True, kw_only=True, tag_field="type"):
    """What every event of a budget carries: the books after it."""


class BudgetSet(BudgetEvent, frozen=True, kw_only=True, tag="budget.set.v1"):
    """The limit, window, warning and team from here on, as a whole."""

    request_id: str
    reason: str | None = None


class BudgetReserved(BudgetEvent, frozen=True, kw_only=True, tag="budget.reserved.v1"):
    """A router leased a slice, or more for the one it has. `spent_nanos` is what it reported on this occasion."""

    slice: str
    amount_nanos: int
    spent_nanos: int = 0


class BudgetSettled(BudgetEvent, frozen=True, kw_only=True, tag="budget.settled.v1"):
    """What was spent of a slice since the last report, and what of it was given back.

    `closed`: nothing of it is left. `actor` in the header says who: its holder, or a keeper once the holder was lost.
    """

    slice: str
    spent_nanos: int
    returned_nanos: int
    closed: bool = False


class BudgetRefused(BudgetEvent, frozen=True, kw_only=True, tag="budget.refused.v1"):
    """A request needed more than there is, also if everything reserved came back.

    `spent_nanos` is what its router reported of its `slice` on this occasion.
    """

    request_id: str
    thread: str
    needed_nanos: int
    slice: str = ""
    spent_nanos: int = 0


class ScopeWarned(BudgetEvent, frozen=True, kw_only=True, tag="budget.warned.v1"):
    """What is settled passed the share `warn_at` of the limit: told once in each window."""


BudgetFact = BudgetSet | BudgetReserved | BudgetSettled | BudgetRefused | ScopeWarned


def key_scope(key: str) -> str:
    """The scope of one API key, by its id."""
    return f"key:{key}"


def team_scope(team: str) -> str:
    """The scope of one team."""
    return f"team:{team}"
