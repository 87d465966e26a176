"""The facts of workflow runs: begun from a definition, step by step, and how each ended. No prompt and no answer.

What steps say lies outside the log, under names that events give: `input`, `definition` and `output` name it. `step`
is a step's path within its run: `draft`, `checks/tone`, `each/3/summary`.
"""

from typing import Literal

from msgspec import Struct

from trunkline_events.usage import Usage


class WorkflowEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of a run carries: the name of its workflow."""

    workflow: str


class WorkflowStarted(WorkflowEvent, frozen=True, kw_only=True, tag="workflow.started.v1"):
    """A run was begun, by the process `by`, which leads it until another one says otherwise.

    `version` is a hash of the definition, which stays the run's own whatever becomes of the workflow; `functions` are
    the names of the code it needs, `models` those of the models that its chats name. `key` is the id of the API key
    whose money it takes; `thread` that of its chats. `deadline` is Unix time. `parent` is the run that this one is a
    step of.
    """

    version: str
    definition: str
    input: str
    thread: str
    by: str
    functions: list[str] = []
    models: list[str] = []
    key: str = ""
    deadline: float | None = None
    parent: str = ""


class WorkflowResumed(WorkflowEvent, frozen=True, kw_only=True, tag="workflow.resumed.v1"):
    """Another process leads the run from here on: the one before was gone, or let it go."""

    by: str
    before: str
    why: Literal["lost", "left"]


class StepStarted(WorkflowEvent, frozen=True, kw_only=True, tag="workflow.step-started.v1"):
    """A step began, for the n-th time."""

    step: str
    kind: str
    attempt: int


class StepEnded(WorkflowEvent, frozen=True, kw_only=True):
    """What an attempt at a step came to. Its chats are among the events of the run's thread; these are their sums."""

    step: str
    attempt: int
    duration_ms: float
    usage: Usage = Usage()
    cost_nanos: int = 0
    chats: int = 0


class StepCompleted(StepEnded, frozen=True, kw_only=True, tag="workflow.step-completed.v1"):
    """A step has its output. `skipped`: a condition said that it was not to be done."""

    output: str
    skipped: bool = False


class StepFailed(StepEnded, frozen=True, kw_only=True, tag="workflow.step-failed.v1"):
    """An attempt at a step failed, with this code. It is tried again at `retry_at` (Unix time; None: no more).

    `fatal`: the run fails with it. The words of the error may quote a prompt and are kept outside the log, as `detail`.
    """

    code: str
    detail: str = ""
    retry_at: float | None = None
    fatal: bool = False


class WorkflowSignalled(WorkflowEvent, frozen=True, kw_only=True, tag="workflow.signalled.v1"):
    """Somebody told the run something that a step may wait for."""

    name: str
    value: str
    by: str = ""


class WorkflowEnded(WorkflowEvent, frozen=True, kw_only=True):
    """What a run came to: the sums of all its steps, and the time since it was begun."""

    duration_ms: float
    usage: Usage = Usage()
    cost_nanos: int = 0
    chats: int = 0
    retries: int = 0


class WorkflowCompleted(WorkflowEnded, frozen=True, kw_only=True, tag="workflow.completed.v1"):
    """A run has its output."""

    output: str


class WorkflowFailed(WorkflowEnded, frozen=True, kw_only=True, tag="workflow.failed.v1"):
    """A run failed: a step that it can't do without did, or its time was over (no `step`)."""

    code: str
    step: str = ""
    detail: str = ""


class WorkflowCancelled(WorkflowEnded, frozen=True, kw_only=True, tag="workflow.cancelled.v1"):
    """Somebody cancelled the run; what was under way was aborted."""

    by: str = ""
    reason: str | None = None


WorkflowFact = (
    WorkflowStarted
    | WorkflowResumed
    | StepStarted
    | StepCompleted
    | StepFailed
    | WorkflowSignalled
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
)
