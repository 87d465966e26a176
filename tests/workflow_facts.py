"""Facts of runs of workflows, a run after some of them, and any of them by hypothesis."""

from typing import Any

from given import NOON
from hypothesis import strategies as st
from trunkline.testing import Given, given
from trunkline_actors import workflow as rules
from trunkline_actors.workflow import NOTHING, Attempt, Run, Spent
from trunkline_events.usage import Usage
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

SPENT = Spent(usage=Usage(input_tokens=3, output_tokens=2), cost_nanos=5, chats=1)
TOTALS: dict[str, Any] = {"workflow": "w", "duration_ms": 2_000.0}
STARTED = WorkflowStarted(
    workflow="w",
    version="v",
    definition="d",
    input="i",
    thread="t",
    by="one",
    functions=["f"],
    models=["m"],
    key="k",
    deadline=9.0,
)
LATER = NOON + 2


def fold(run: Run, fact: WorkflowFact) -> Run:
    return rules.evolve(run, fact, "r", NOON)


def a_run(*facts: WorkflowFact) -> Given[Run]:
    return given([STARTED, *facts], fold, NOTHING)


def before() -> Given[Run]:
    return given([], fold, NOTHING)


def over(step: str = "a", attempt: int = 1, spent: Spent = SPENT) -> Attempt:
    return Attempt(step=step, attempt=attempt, duration_ms=7.0, spent=spent)


def done(step: str = "a", **more: Any) -> StepCompleted:
    return StepCompleted(**{"workflow": "w", "output": "o", **over(step).fields(), **more})


def failed(step: str = "a", attempt: int = 1, retry_at: float | None = None, **more: Any) -> StepFailed:
    return StepFailed(workflow="w", code="busy", retry_at=retry_at, **{**over(step, attempt).fields(), **more})


COMPLETED = WorkflowCompleted(**TOTALS, output="o")
FAILED = WorkflowFailed(**TOTALS, code="busy", step="a", detail="words")
CANCELLED = WorkflowCancelled(**TOTALS, by="ada")
ENDED: list[WorkflowFact] = [COMPLETED, FAILED, CANCELLED]

steps = st.sampled_from(["a", "b", "c/0/d"])
names = st.sampled_from(["one", "two", ""])
attempts = st.integers(1, 4)
spent = st.builds(
    Spent, usage=st.builds(Usage, input_tokens=st.integers(0, 9)), cost_nanos=st.integers(0, 9), chats=st.integers(0, 2)
)
overs = st.builds(Attempt, step=steps, attempt=attempts, duration_ms=st.just(1.0), spent=spent)
FACTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(WorkflowStarted, by=names, deadline=st.none() | st.floats(0, 9)),
    st.builds(WorkflowResumed, by=names, before=names),
    st.builds(StepStarted, step=steps),
    st.builds(StepCompleted, step=steps, skipped=st.booleans()),
    st.builds(StepFailed, step=steps, retry_at=st.none() | st.floats(0, 9)),
    st.builds(WorkflowSignalled, name=steps),
    st.builds(WorkflowCompleted),
    st.builds(WorkflowFailed),
    st.builds(WorkflowCancelled),
)
