"""A run as people look at it: its steps in the order they began, with their times, tokens and cost. Pure."""

from typing import Any, cast

import msgspec
from msgspec import Struct
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.money import usd_from_nanos
from trunkline_events.times import format_time
from trunkline_events.workflow import (
    StepCompleted,
    StepFailed,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowEnded,
    WorkflowEvent,
    WorkflowFact,
    WorkflowFailed,
    WorkflowResumed,
    WorkflowStarted,
)
from trunkline_projections.workflows import OpenRun

from trunkline_actors import workflow as rules
from trunkline_actors.workflow import Run, Spent, spent_by


class StepLine(Struct, kw_only=True):
    """One step: `attempts` counts those that began. Times are Unix times; `busy_ms` is the time of all attempts.

    `status` is running, waiting (to be tried again), completed, skipped, failed, or cut: what was under way when its
    run ended. `code` is that of the last failure, unless the step was done after all. `by` is who led the run when the
    last attempt began.
    """

    step: str
    kind: str = ""
    status: str = "running"
    attempts: int = 0
    began: float = 0.0
    ended: float | None = None
    busy_ms: float = 0.0
    spent: Spent = Spent()
    code: str = ""
    by: str = ""


class Timeline:
    """Folds the events of one run."""

    def __init__(self, run_id: str) -> None:
        self._id = run_id
        self.run: Run = rules.NOTHING
        self.steps: dict[str, StepLine] = {}
        self.led: list[tuple[float, str]] = []
        """Who has led it since when."""

    def add(self, event: RecordedEvent) -> None:
        """The next event."""
        if isinstance(event.body, Unknown):
            return
        fact = cast("WorkflowFact", event.body)
        self.run = rules.evolve(self.run, fact, self._id, event.time)
        if isinstance(fact, StepStarted):
            line = self._line(fact.step, event.time)
            line.kind, line.status, line.attempts, line.by = fact.kind, "running", fact.attempt, self.run.by
            line.ended = None
        elif isinstance(fact, StepCompleted | StepFailed):
            self._ended(fact, event.time)
        elif isinstance(fact, WorkflowEnded):
            self._cut(event.time)
        elif isinstance(fact, WorkflowStarted | WorkflowResumed) and fact.by:
            self.led.append((event.time, fact.by))

    def _cut(self, time: float) -> None:
        for line in self.steps.values():
            if line.status in ("running", "waiting"):
                line.status, line.ended = "cut", time

    def _line(self, step: str, time: float) -> StepLine:
        return self.steps.setdefault(step, StepLine(step=step, began=time))

    def _ended(self, fact: StepCompleted | StepFailed, time: float) -> None:
        line = self._line(fact.step, time)
        line.attempts = max(line.attempts, fact.attempt)
        line.busy_ms = round(line.busy_ms + fact.duration_ms, 3)
        line.spent += spent_by(fact)
        line.ended = time
        if isinstance(fact, StepFailed):
            line.code = fact.code
            line.status = "failed" if fact.retry_at is None else "waiting"
        else:
            line.code = ""
            line.status = "skipped" if fact.skipped else "completed"

    def shown(self, now: float) -> dict[str, Any]:
        """All of it, as commands show it."""
        run = self.run
        ended = run.ended or (now if run.status == "running" else run.began)
        return {
            "id": run.id,
            "workflow": run.workflow,
            "version": run.version,
            "status": run.status,
            "by": run.by or None,
            "thread": run.thread,
            "key": run.key or None,
            "began_at": format_time(run.began),
            "ended_at": format_time(run.ended) if run.ended else None,
            "deadline": None if run.deadline is None else format_time(run.deadline),
            "code": run.code or None,
            "failed_step": run.ended_by or None,
            "metrics": {
                "duration_ms": round(max(0.0, ended - run.began) * 1000, 3),
                "cost_usd": usd_from_nanos(run.spent.cost_nanos),
                "usage": msgspec.to_builtins(run.spent.usage),
                "chats": run.spent.chats,
                "retries": run.retries,
                "led_by": len({by for _, by in self.led}),
            },
            "led": [{"by": by, "since": format_time(time)} for time, by in self.led],
            "steps": [_shown(line) for line in self.steps.values()],
        }


def _shown(line: StepLine) -> dict[str, Any]:
    return {
        "step": line.step,
        "kind": line.kind,
        "status": line.status,
        "attempts": line.attempts,
        "began_at": format_time(line.began),
        "ended_at": None if line.ended is None else format_time(line.ended),
        "busy_ms": line.busy_ms,
        "cost_usd": usd_from_nanos(line.spent.cost_nanos),
        "usage": msgspec.to_builtins(line.spent.usage),
        "chats": line.spent.chats,
        "code": line.code or None,
        "by": line.by or None,
    }


def listed(event: RecordedEvent, run: OpenRun | None, waits_for: list[str]) -> dict[str, Any]:
    """A run as lists show it, by its last event; `run` where it is under way, `waits_for` the code that nobody has."""
    body = event.body
    totals = body if isinstance(body, WorkflowEnded) else None
    return {
        "id": event.aggregate,
        "workflow": body.workflow if isinstance(body, WorkflowEvent) else "",
        "status": _status(body),
        "at": format_time(event.time),
        "seq": event.sequence,
        "by": run.by or None if run is not None else None,
        "waits_for": waits_for,
        "cost_usd": None if totals is None else usd_from_nanos(totals.cost_nanos),
        "duration_ms": None if totals is None else totals.duration_ms,
    }


def _status(body: object) -> rules.Status:
    match body:
        case WorkflowCompleted():
            return "completed"
        case WorkflowFailed():
            return "failed"
        case WorkflowCancelled():
            return "cancelled"
        case _:
            return "running"
