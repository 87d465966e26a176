"""A run of a workflow as its events tell it, and the decisions about it. Pure.

Every decision is by the process that leads the run. Another one that has taken it over meanwhile is found out by the
log, which takes no event that was decided from an older state; the one before then hears that it leads no more.
"""

from collections.abc import Mapping
from typing import Any, Literal, assert_never

from msgspec import Struct, field, structs
from trunkline_events.refusal import Refused
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

Status = Literal["running", "completed", "failed", "cancelled"]

MOST_SIGNALS = 1_000


class Spent(Struct, frozen=True, kw_only=True):
    """What something has used: tokens, nano-dollars, chats."""

    usage: Usage = Usage()
    cost_nanos: int = 0
    chats: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            usage=self.usage + other.usage,
            cost_nanos=self.cost_nanos + other.cost_nanos,
            chats=self.chats + other.chats,
        )


class Done(Struct, frozen=True, kw_only=True):
    """What a step came to: the name of its output, or the code that it failed for good with."""

    output: str = ""
    code: str = ""
    detail: str = ""
    skipped: bool = False


class Run(Struct, frozen=True, kw_only=True):
    """A run. Times are Unix times. `failures` counts those of each step, `retry_at` says when one is tried again.

    `by` leads it; empty: nobody does yet. `ended_by` is the step that it failed with, `code` why.
    """

    id: str = ""
    workflow: str = ""
    version: str = ""
    definition: str = ""
    input: str = ""
    thread: str = ""
    by: str = ""
    key: str = ""
    parent: str = ""
    functions: list[str] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    deadline: float | None = None
    status: Status = "running"
    output: str = ""
    code: str = ""
    detail: str = ""
    ended_by: str = ""
    done: Mapping[str, Done] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    retry_at: Mapping[str, float] = field(default_factory=dict)
    signals: Mapping[str, str] = field(default_factory=dict)
    spent: Spent = Spent()
    retries: int = 0


NOTHING = Run()
"""Before a run was begun."""

GONE = Refused(code="conflict", message="another process leads this run now", retryable=False)
OVER = Refused(code="conflict", message="this run has ended; see `trunkline workflows show`", retryable=False)


def evolve(run: Run, fact: WorkflowFact, run_id: str, time: float) -> Run:
    """The run after this event, which happened at `time`."""
    match fact:
        case WorkflowStarted():
            return Run(
                id=run_id,
                workflow=fact.workflow,
                version=fact.version,
                definition=fact.definition,
                input=fact.input,
                thread=fact.thread,
                by=fact.by,
                key=fact.key,
                parent=fact.parent,
                functions=fact.functions,
                began=time,
                deadline=fact.deadline,
            )
        case WorkflowResumed():
            return structs.replace(run, by=fact.by)
        case StepStarted():
            return run
        case StepCompleted():
            done = Done(output=fact.output, skipped=fact.skipped)
            return structs.replace(run, done={**run.done, fact.step: done}, spent=run.spent + spent_by(fact))
        case StepFailed():
            return _failed(run, fact)
        case WorkflowSignalled():
            return structs.replace(run, signals={**run.signals, fact.name: fact.value})
        case WorkflowCompleted():
            return structs.replace(run, status="completed", output=fact.output, ended=time)
        case WorkflowFailed():
            ended = {"code": fact.code, "detail": fact.detail, "ended_by": fact.step, "ended": time}
            return structs.replace(run, status="failed", **ended)
        case WorkflowCancelled():
            return structs.replace(run, status="cancelled", code="cancelled", ended=time)
        case _:  # pragma: no cover
            assert_never(fact)


def _failed(run: Run, fact: StepFailed) -> Run:
    failures = {**run.failures, fact.step: fact.attempt}
    spent = run.spent + spent_by(fact)
    if fact.retry_at is not None:
        retry_at = {**run.retry_at, fact.step: fact.retry_at}
        return structs.replace(run, failures=failures, retry_at=retry_at, spent=spent, retries=run.retries + 1)
    done = {**run.done, fact.step: Done(code=fact.code, detail=fact.detail)}
    return structs.replace(run, failures=failures, done=done, spent=spent)


def spent_by(fact: StepCompleted | StepFailed) -> Spent:
    """What an attempt at a step has used."""
    return Spent(usage=fact.usage, cost_nanos=fact.cost_nanos, chats=fact.chats)


# -- decisions ---------------------------------------------------------------------------------------------------------


def _not_ours(run: Run, by: str) -> Refused | None:
    if not run.id:
        return _no_run()
    if run.status != "running":
        return OVER
    return None if run.by == by else GONE


def start(run: Run, fact: WorkflowStarted) -> WorkflowStarted | Refused | None:
    """Begin a run; None where the very same was begun under this id."""
    if not run.id:
        return fact
    if (run.workflow, run.version, run.input) == (fact.workflow, fact.version, fact.input):
        return None
    return Refused(code="conflict", message=f"there is a run {run.id!r} of something else; use another id", param="id")


def take(run: Run, by: str, before: str, why: Literal["lost", "left"]) -> WorkflowResumed | Refused | None:
    """Lead a run that nobody leads any more; refused where somebody else was quicker, or it is over."""
    if not run.id:
        return _no_run()
    if run.status != "running":
        return OVER
    if run.by == by:
        return None
    return WorkflowResumed(workflow=run.workflow, by=by, before=before, why=why) if run.by == before else GONE


def begin(run: Run, by: str, step: str, kind: str) -> StepStarted | Refused | None:
    """A step begins; None where it has ended already."""
    if refused := _not_ours(run, by):
        return refused
    if step in run.done:
        return None
    return StepStarted(workflow=run.workflow, step=step, kind=kind, attempt=run.failures.get(step, 0) + 1)


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt at a step that is over: how long it took, and what it used."""

    step: str
    attempt: int
    duration_ms: float
    spent: Spent = Spent()

    def fields(self) -> dict[str, Any]:
        """As events carry them."""
        spent = self.spent
        used = {"usage": spent.usage, "cost_nanos": spent.cost_nanos, "chats": spent.chats}
        return {"step": self.step, "attempt": self.attempt, "duration_ms": self.duration_ms, **used}


def complete(run: Run, by: str, over: Attempt, output: str, *, skipped: bool = False) -> StepCompleted | Refused | None:
    """A step has its output; None where it has ended already."""
    if refused := _not_ours(run, by):
        return refused
    if over.step in run.done:
        return None
    return StepCompleted(workflow=run.workflow, output=output, skipped=skipped, **over.fields())


class Trouble(Struct, frozen=True, kw_only=True):
    """Why an attempt failed. `pause`: seconds until it is tried again, None: no more. `fatal`: its run fails too."""

    code: str
    detail: str = ""
    pause: float | None = None
    fatal: bool = False


def fail(run: Run, by: str, over: Attempt, trouble: Trouble, now: float) -> StepFailed | Refused | None:
    """An attempt failed; None where the step has ended already, or this very failure is known."""
    if refused := _not_ours(run, by):
        return refused
    if over.step in run.done or over.attempt <= run.failures.get(over.step, 0):
        return None
    return StepFailed(
        workflow=run.workflow,
        code=trouble.code,
        detail=trouble.detail,
        retry_at=None if trouble.pause is None else now + trouble.pause,
        fatal=trouble.fatal and trouble.pause is None,
        **over.fields(),
    )


def signal(run: Run, name: str, value: str, by: str) -> WorkflowSignalled | Refused | None:
    """Somebody tells a run something; a signal of the same name again counts instead."""
    if not run.id:
        return _no_run()
    if run.status != "running":
        return OVER
    if run.signals.get(name) == value:
        return None
    if len(run.signals) >= MOST_SIGNALS and name not in run.signals:
        return Refused(code="invalid_request", message=f"a run takes at most {MOST_SIGNALS:,} signals", param="name")
    return WorkflowSignalled(workflow=run.workflow, name=name, value=value, by=by)


def _totals(run: Run, now: float) -> dict[str, Any]:
    spent = run.spent
    return {
        "workflow": run.workflow,
        "duration_ms": round(max(0.0, now - run.began) * 1000, 3),
        "usage": spent.usage,
        "cost_nanos": spent.cost_nanos,
        "chats": spent.chats,
        "retries": run.retries,
    }


def finish(run: Run, by: str, output: str, now: float) -> WorkflowCompleted | Refused:
    """The run has its output."""
    return _not_ours(run, by) or WorkflowCompleted(output=output, **_totals(run, now))


def give_up(run: Run, by: str, step: str, code: str, detail: str, now: float) -> WorkflowFailed | Refused:
    """The run failed, with a step or for want of time."""
    return _not_ours(run, by) or WorkflowFailed(code=code, step=step, detail=detail, **_totals(run, now))


def cancel(run: Run, by: str, reason: str | None, now: float) -> WorkflowCancelled | Refused | None:
    """End a run on somebody's wish, whoever leads it; None where it is cancelled already."""
    if not run.id:
        return _no_run()
    if run.status == "cancelled":
        return None
    return OVER if run.status != "running" else WorkflowCancelled(by=by, reason=reason, **_totals(run, now))


def _no_run() -> Refused:
    return Refused(code="not_found", message="there is no such run; see `trunkline workflows list`", param="id")
