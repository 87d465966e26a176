"""One example of every event of workflow runs, for `examples`."""

from trunkline_events import workflow
from trunkline_events.envelope import Event
from trunkline_events.usage import Usage

_SPENT = {
    "workflow": "review",
    "duration_ms": 812.5,
    "usage": Usage(input_tokens=20, cached_input_tokens=10, output_tokens=7, reasoning_tokens=3),
    "cost_nanos": 123,
    "chats": 2,
}
_STEP_ENDED = {**_SPENT, "step": "checks/tone", "attempt": 2}
_RUN_ENDED = {**_SPENT, "retries": 1}

RUNS: list[Event] = [
    workflow.WorkflowStarted(
        workflow="review",
        version="9f6d9f09c98c429e",
        definition="definition",
        input="input",
        thread="wf-1",
        by="host-1",
        functions=["reviews:score"],
        key="search",
        deadline=1_795_266_000.0,
        parent="wf-0",
    ),
    workflow.WorkflowResumed(workflow="review", by="host-2", before="host-1", why="lost"),
    workflow.StepStarted(workflow="review", step="checks/tone", kind="llm", attempt=2),
    workflow.StepCompleted(**_STEP_ENDED, output="0123456789abcdef", skipped=True),  # type: ignore[arg-type]
    workflow.StepFailed(
        **_STEP_ENDED,  # type: ignore[arg-type]
        code="timeout",
        detail="0123456789abcdef",
        retry_at=1_795_262_401.5,
        fatal=True,
    ),
    workflow.WorkflowSignalled(workflow="review", name="approved", value="0123456789abcdef", by="search"),
    workflow.WorkflowCompleted(**_RUN_ENDED, output="0123456789abcdef"),  # type: ignore[arg-type]
    workflow.WorkflowFailed(**_RUN_ENDED, code="timeout", step="draft", detail="0123456789abcdef"),  # type: ignore[arg-type]
    workflow.WorkflowCancelled(**_RUN_ENDED, by="search", reason="a mistake"),  # type: ignore[arg-type]
]
