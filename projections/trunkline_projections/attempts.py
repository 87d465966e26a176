"""Requests that are under way, over all threads: what a keeper must not lose sight of."""

from typing import assert_never

from msgspec import Struct, structs
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
    """A request whose first event is in the log and which may still wait for its answer.

    `running` is false between attempts and after the last one: then `ended` says what the caller should have heard
    (an event type), `sequence` where it stands, and the request stays here until it is known to be answered.
    """

    aggregate: str
    request_id: str
    attempt_id: str
    attempt: int
    model: str
    provider: str
    reply: str
    operation: str
    deadline: float
    sequence: int
    running: bool = True
    ended: str | None = None


Attempts = dict[str, Pending]
"""By attempt id. A request's later attempt takes the place of its earlier one."""

EMPTY: Attempts = {}


def evolve(state: Attempts, fact: ThreadFact, sequence: int, aggregate: str) -> Attempts:
    """What is under way after this event. Mutates and returns `state`: it changes with every chat, and is large."""
    match fact:
        case RouteDecided():
            earlier = fact.attempt_id.rpartition("-")[0] + f"-{fact.attempt - 1}"
            state.pop(earlier, None)
            state[fact.attempt_id] = Pending(
                aggregate=aggregate,
                request_id=fact.request_id,
                attempt_id=fact.attempt_id,
                attempt=fact.attempt,
                model=fact.model,
                provider=fact.provider,
                reply=fact.reply,
                operation=fact.asked.operation,
                deadline=fact.deadline,
                sequence=sequence,
            )
        case UsageRecorded() | Aborted() | AttemptFailed() | Orphaned():
            pending = state.get(fact.attempt_id)
            if pending is not None:
                state[fact.attempt_id] = structs.replace(
                    pending, running=False, ended=fact.__struct_config__.tag, sequence=sequence
                )
        case ThreadConfigured() | RequestRefused() | BudgetWarned():
            pass
        case _:  # pragma: no cover
            assert_never(fact)
    return state
