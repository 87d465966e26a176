"""The read model of budgets above the thread. Each event carries the budget as it stands: the last one is the row."""

from trunkline_events.budget import BudgetEvent, BudgetRefused
from trunkline_events.envelope import RecordedEvent

from trunkline_projections.sql_tables import Change, Table, texts, wholes
from trunkline_projections.sql_values import clean, number, share

BUDGETS = Table(
    name="budgets",
    key=texts("scope"),
    sums=("refused",),
    lasts=(
        *wholes("last_sequence"),
        *texts("last_time"),
        *wholes("settled_nanos", "reserved_nanos", "limit_nanos"),
        *texts("budget_window", "budget_zone", "budget_period", "warn_at"),
        *wholes("warned"),
        *texts("team"),
        *wholes("slices"),
    ),
)


def budget_change(event: RecordedEvent, fact: BudgetEvent, at: str) -> Change:
    """The budget's row after this event. `slices` is how many are held."""
    lasts = (
        *(event.sequence, at),
        *(number(fact.settled_nanos), number(fact.reserved_nanos)),
        None if fact.limit_nanos is None else number(fact.limit_nanos),
        *(fact.window, clean(fact.zone), clean(fact.period), share(fact.warn_at), int(fact.warned)),
        None if fact.team is None else clean(fact.team),
        len(fact.slices),
    )
    return Change(BUDGETS, (clean(event.aggregate),), (int(isinstance(fact, BudgetRefused)),), lasts)
