"""Which runs of workflows are under way, and who leads each: what it takes to go on with those of a dead process."""

from typing import assert_never

from msgspec import Struct, structs
from trunkline_events.workflow import (
    StepCompleted,
    StepFailed,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFact,
    WorkflowFailed,
    WorkflowResumed,
    WorkflowSignalled,
    WorkflowStarted,
)

CATEGORIES = ("workflow",)


class OpenRun(Struct, frozen=True, kw_only=True):
    """A run under way: `by` leads it, it needs the code `functions`, its chats name `models`; `began` is Unix time."""

    workflow: str
    by: str
    functions: list[str]
    models: list[str]
    began: float
    sequence: int


Runs = dict[str, OpenRun]
"""By id."""


def evolve(state: Runs, fact: WorkflowFact, run_id: str, sequence: int, time: float) -> Runs:
    """What is under way after this event. Mutates and returns `state`."""
    match fact:
        case WorkflowStarted():
            state[run_id] = OpenRun(
                workflow=fact.workflow,
                by=fact.by,
                functions=fact.functions,
                models=fact.models,
                began=time,
                sequence=sequence,
            )
        case WorkflowResumed():
            known = state.get(run_id)
            if known is not None:
                state[run_id] = structs.replace(known, by=fact.by, sequence=sequence)
        case WorkflowCompleted() | WorkflowFailed() | WorkflowCancelled():
            state.pop(run_id, None)
        case StepStarted() | StepCompleted() | StepFailed() | WorkflowSignalled():
            pass
        case _:  # pragma: no cover
            assert_never(fact)
    return state
