"""Attempts that are under way, over all threads: what a keeper must not lose sight of."""

from typing import assert_never

from msgspec import Struct
from trunkline_events.thread import (
    Aborted,
    AttemptFailed,
    BudgetWarned,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadConfigured,
    ThreadFact,
    UsageRecorded,
)

CATEGORIES = ("thread",)


class Pending(Struct, frozen=True, kw_only=True):
    """An attempt that was decided and has not ended. `sequence` is where its RouteDecided stands."""

    aggregate: str
    attempt_id: str
    sequence: int
    deadline: float


Attempts = dict[str, Pending]
"""By attempt id."""


def evolve(state: Attempts, fact: ThreadFact, sequence: int, aggregate: str) -> Attempts:
    """What is under way after this event. Mutates and returns `state`: it changes with every chat, and is large."""
    match fact:
        case RouteDecided():
            state[fact.attempt_id] = Pending(
                aggregate=aggregate, attempt_id=fact.attempt_id, sequence=sequence, deadline=fact.deadline
            )
        case UsageRecorded() | Aborted() | AttemptFailed() | Orphaned():
            state.pop(fact.attempt_id, None)
        case ThreadConfigured() | RequestRefused() | BudgetWarned():
            pass
        case _:  # pragma: no cover
            assert_never(fact)
    return state
