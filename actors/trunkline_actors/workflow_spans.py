"""The trace of a run: one for all of its steps and chats, the same whoever leads it: its ids follow from the run's.

A run that was begun in somebody's trace goes on in that one. Pure.
"""

import hashlib
from collections.abc import Iterator

from trunkline_actors import semconv
from trunkline_actors.spans import INTERNAL, Attributes, Context, Own, Said, Span
from trunkline_actors.workflow import Attempt, Run


def of_run(run_id: str, began: float, traceparent: str | None) -> Context:
    """The span of a run: in the trace that it was begun in, or in one of its own."""
    own = _hex(32, run_id)
    _, trace, parent, _ = (traceparent or f"00-{own}--01").split("-")
    return Context(trace, _hex(16, run_id), parent, began)


def of_step(run: Context, path: str, attempt: int, began: float) -> Context:
    """The span of one attempt at a step."""
    return Context(run.trace, _hex(16, run.span, path, attempt), run.span, began)


def run_span(context: Context, run: Run, end: float) -> Iterator[Span]:
    """A run that is over."""
    own: Own = [(semconv.RUN_ID, run.id), (semconv.COST, run.spent.cost_nanos / 1e9), (semconv.RETRIES, run.retries)]
    said: Said = (_run, run.workflow, run.version, run.code)
    failed = run.status == "failed"
    yield Span(context.trace, context.span, context.parent, said, context.start, end, own, failed)


def step_span(context: Context, run: Run, kind: str, over: Attempt, code: str, end: float) -> Iterator[Span]:
    """An attempt at a step that is over, well where there is no code."""
    own: Own = [(semconv.RUN_ID, run.id), (semconv.STEP, over.step), (semconv.COST, over.spent.cost_nanos / 1e9)]
    said: Said = (_step, run.workflow, kind, over.attempt, code)
    yield Span(context.trace, context.span, context.parent, said, context.start, end, own, bool(code))


def _run(workflow: str, version: str, code: str) -> tuple[str, int, Attributes]:
    said: Attributes = {
        semconv.OPERATION: semconv.INVOKE_WORKFLOW,
        semconv.WORKFLOW: workflow,
        semconv.WORKFLOW_VERSION: version,
    }
    if code:
        said[semconv.ERROR_TYPE] = code
    return f"{semconv.INVOKE_WORKFLOW} {workflow}", INTERNAL, said


def _step(workflow: str, kind: str, attempt: int, code: str) -> tuple[str, int, Attributes]:
    said: Attributes = {semconv.WORKFLOW: workflow, semconv.STEP_KIND: kind, semconv.ATTEMPT: attempt}
    if code:
        said[semconv.ERROR_TYPE] = code
    return f"step {kind}", INTERNAL, said


def _hex(digits: int, *parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=digits // 2).hexdigest()
