"""Budgets above the thread, as their last events carry them."""

from msgspec import Struct
from trunkline_events.budget import BudgetFact, ScopeBooks

CATEGORIES = ("budget",)


class Budget(Struct, frozen=True, kw_only=True):
    """A budget and the log sequence of its last event."""

    books: ScopeBooks
    sequence: int


Budgets = dict[str, Budget]
"""By scope: `gateway`, `team:<id>`, `key:<id>`."""

_FIELDS = ScopeBooks.__struct_fields__


def books_of(fact: BudgetFact) -> ScopeBooks:
    """The books after this event."""
    return ScopeBooks(**{name: getattr(fact, name) for name in _FIELDS})


def evolve(state: Budgets, fact: BudgetFact, sequence: int, scope: str) -> Budgets:
    """All budgets after this event."""
    return {**state, scope: Budget(books=books_of(fact), sequence=sequence)}
