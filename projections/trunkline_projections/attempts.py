"""What is under way, over all threads and budgets: what a keeper must not lose sight of.

Attempts that were decided and have not ended, and slices of budgets, each with what its attempts cost and may yet cost:
whoever closes the slice of a dead process finds its books here.
"""

from typing import assert_never

from msgspec import Struct, field
from trunkline_events.budget import BudgetFact, BudgetRefused, BudgetReserved, BudgetSet, BudgetSettled, ScopeWarned
from trunkline_events.thread import (
    Aborted,
    AnswerReused,
    AttemptFailed,
    BudgetWarned,
    Ending,
    Metered,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadConfigured,
    ThreadFact,
    UsageRecorded,
)

CATEGORIES = ("thread", "budget")


class Pending(Struct, frozen=True, kw_only=True):
    """An attempt that was decided and has not ended. `sequence` is where its RouteDecided stands.

    `void`: it takes from a slice that was frozen or closed before, so nobody sends it upstream, and it costs nothing.
    """

    aggregate: str
    attempt_id: str
    sequence: int
    deadline: float
    void: bool = False


class SliceUse(Struct, kw_only=True):
    """What was taken from a slice of the budget `scope`: what ended attempts cost, and what open ones may cost.

    `frozen`: decisions that come later in the log are void, and take nothing.
    """

    scope: str
    holder: str
    spent_nanos: int = 0
    reported_nanos: int = 0
    open: dict[str, int] = field(default_factory=dict)
    frozen: bool = False


class UnderWay(Struct, kw_only=True):
    """Open attempts by id, and leased slices by name."""

    attempts: dict[str, Pending] = field(default_factory=dict)
    slices: dict[str, SliceUse] = field(default_factory=dict)


def evolve(state: UnderWay, fact: ThreadFact | BudgetFact, sequence: int, aggregate: str) -> UnderWay:
    """What is under way after this event. Mutates and returns `state`: it changes with every chat, and is large."""
    match fact:
        case RouteDecided():
            usable = [use for name in fact.slices.values() if (use := state.slices.get(name)) and not use.frozen]
            for use in usable:
                use.open[fact.attempt_id] = fact.reserve_nanos
            state.attempts[fact.attempt_id] = Pending(
                aggregate=aggregate,
                attempt_id=fact.attempt_id,
                sequence=sequence,
                deadline=fact.deadline,
                void=fact.reserve_nanos > 0 and len(usable) < len(fact.slices),
            )
        case UsageRecorded() | Aborted() | AttemptFailed() | Orphaned():
            state.attempts.pop(fact.attempt_id, None)
            _ended(state, fact)
        case ThreadConfigured() | RequestRefused() | AnswerReused() | BudgetWarned():
            pass
        case BudgetReserved() | BudgetSettled():
            _leased(state, fact, aggregate)
        case BudgetSet() | BudgetRefused() | ScopeWarned():
            pass
        case _:  # pragma: no cover
            assert_never(fact)
    return state


def _ended(state: UnderWay, ending: Ending) -> None:
    for name in ending.slices.values():
        use = state.slices.get(name)
        if use is not None and use.open.pop(ending.attempt_id, None) is not None:
            use.spent_nanos += ending.cost_nanos if isinstance(ending, Metered | Orphaned) else 0


def _leased(state: UnderWay, fact: BudgetReserved | BudgetSettled, scope: str) -> None:
    held = fact.slices.get(fact.slice)
    if held is None:
        state.slices.pop(fact.slice, None)
        return
    use = state.slices.setdefault(fact.slice, SliceUse(scope=scope, holder=held.holder))
    use.frozen, use.reported_nanos = held.frozen, held.spent_nanos
