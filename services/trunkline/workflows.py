"""Workflows in plain Python: steps that ask models, call functions, run side by side, choose, and go through lists.

    from trunkline.workflows import Engine, LLMStep, TransformStep, Workflow

    def shorten(draft: str) -> str:
        return draft[:280]

    tweet = Workflow("tweet", [
        LLMStep("draft", "Write about {topic}."),
        TransformStep("short", shorten),
    ])

    async with Engine("nats://127.0.0.1:4222") as engine:
        result = await engine.run(tweet, {"topic": "foxes"})
        print(result.output, result.metrics["cost_usd"])

A step's output is a variable for the steps after it, and so is each field of the input. What is wrong with a workflow
is told where it is made or begun, with its place, and before its first step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from trunkline_actors.workflow_checks import problems
from trunkline_actors.workflow_code import (
    Ask,
    CodeBook,
    Middleware,
    Said,
    StepContext,
    StepError,
    name_of,
    parameters_of,
)
from trunkline_actors.workflow_model import (
    Choice,
    Code,
    Condition,
    Definition,
    Each,
    Llm,
    Parallel,
    Retry,
    Step,
    Sub,
    Wait,
)

from trunkline.workflow_engine import Engine, WorkflowFailed, WorkflowResult

__all__ = [
    "Ask",
    "BadWorkflow",
    "Condition",
    "ConditionalStep",
    "Engine",
    "LLMStep",
    "MapStep",
    "Middleware",
    "ParallelStep",
    "Retry",
    "Said",
    "StepContext",
    "StepError",
    "SubWorkflowStep",
    "TransformStep",
    "WaitStep",
    "Workflow",
    "WorkflowFailed",
    "WorkflowResult",
]


class BadWorkflow(ValueError):
    """A workflow makes no sense: every place where it does not is in `problems`, and the first in the message."""

    def __init__(self, found: Sequence[Any]) -> None:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        super().__init__(f"{found[0]}{more}")
        self.problems = list(found)


class _Made:
    """A step as it was made, and the functions it needs."""

    def __init__(self, step: Step, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.step = step
        self.functions = dict(functions or {})


def LLMStep(  # noqa: N802 - it is used as a class is
    name: str,
    prompt: str = "",
    *,
    output: type[Any] | Mapping[str, Any] | None = None,
    model: str = "auto",
    **more: Any,
) -> _Made:
    """Ask a model; `prompt`, `system` and `messages` are templates. The output is its text.

    With `output`, a msgspec type or a JSON Schema, it is the JSON value that the model says, which must fit; where it
    does not, the model is asked to mend it (`repairs`, by default once). `budget_usd`, `route`, `parameters`,
    `timeout_s`, `retry`, `critical` and `when` are as `trunkline_actors.workflow_model.Llm` has them.
    """
    schema = None if output is None else _schema(output)
    return _Made(Llm(name=name, prompt=prompt, model=model, schema=schema, **more))


def TransformStep(  # noqa: N802
    name: str, function: Callable[..., Any], takes: Mapping[str, str] | None = None, **more: Any
) -> _Made:
    """Call a function of a module, or a coroutine function; its parameters are variables of the same names.

    `takes` names others: `{"text": "draft.body"}`. A parameter with a default is given only where `takes` names it.
    The output must be what JSON can hold. It may be called again after a crash: only its output is kept once.
    """
    registered = name_of(function)
    must, all_ = parameters_of(function)
    unknown = [parameter for parameter in takes or () if parameter not in all_]
    if unknown:
        raise TypeError(f"{registered} takes no {unknown[0]!r}; it takes {', '.join(all_) or 'nothing'}")
    mapped = {**{parameter: parameter for parameter in must}, **(takes or {})}
    return _Made(Code(name=name, function=registered, takes=mapped, **more), {registered: function})


def WaitStep(name: str, signal: str, **more: Any) -> _Made:  # noqa: N802
    """Go on when the run is sent this signal; the output is what came with it."""
    return _Made(Wait(name=name, signal=signal, **more))


def ParallelStep(name: str, steps: Sequence[_Made], **more: Any) -> _Made:  # noqa: N802
    """All at once. The output maps their names to their outputs."""
    return _Made(Parallel(name=name, steps=_steps(steps), **more), _functions(steps))


def ConditionalStep(  # noqa: N802
    name: str,
    condition: Condition | str,
    then: Sequence[_Made],
    otherwise: Sequence[_Made] = (),
    **more: Any,
) -> _Made:
    """One or the other. `condition` is a variable that is true or not, or a Condition."""
    asked = Condition(value=condition) if isinstance(condition, str) else condition
    step = Choice(name=name, condition=asked, then=_steps(then), otherwise=_steps(otherwise), **more)
    return _Made(step, _functions([*then, *otherwise]))


def MapStep(  # noqa: N802
    name: str, over: str, steps: Sequence[_Made], *, item: str = "item", at_once: int = 8, **more: Any
) -> _Made:
    """The steps for each entry of the list `over`, which they know as `item`. The output is a list."""
    step = Each(name=name, over=over, steps=_steps(steps), item=item, at_once=at_once, **more)
    return _Made(step, _functions(steps))


def SubWorkflowStep(  # noqa: N802
    name: str,
    workflow: "Workflow",
    input: Mapping[str, str] | None = None,  # noqa: A002
    **more: Any,
) -> _Made:
    """Another workflow as a step: `input` maps the fields of its input to variables of ours."""
    step = Sub(name=name, definition=workflow.definition, input=dict(input or {}), **more)
    return _Made(step, workflow.functions)


class Workflow:
    """A workflow: a name, and steps in order. Raises BadWorkflow where it makes no sense.

    `input` is the type of its input, a msgspec struct or a JSON Schema of an object: what is not of that type is
    refused before the first step, and only its fields are variables. `returns` is the type that the output is given
    back as.
    """

    def __init__(
        self,
        name: str,
        steps: Sequence[_Made],
        *,
        input: type[Any] | Mapping[str, Any] | None = None,  # noqa: A002
        output: str | None = None,
        returns: type[Any] | None = None,
        budget_usd: str | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.definition = Definition(
            name=name,
            steps=_steps(steps),
            inputs=None if input is None else _schema(input),
            output=output,
            budget_usd=budget_usd,
            deadline_s=deadline_s,
        )
        self.functions = _functions(steps)
        self.returns = returns
        found = problems(self.definition)
        if found:
            raise BadWorkflow(found)

    @property
    def name(self) -> str:
        """What it goes by."""
        return self.definition.name

    def register(self, book: CodeBook) -> None:
        """Make a process able to lead runs of it."""
        book.workflows[self.name] = self.definition
        book.functions.update(self.functions)


def _steps(steps: Sequence[_Made]) -> list[Step]:
    return [made.step for made in steps]


def _functions(steps: Sequence[_Made]) -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for made in steps:
        found |= made.functions
    return found


def _schema(kind: type[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema, with what it refers to beside it."""
    if isinstance(kind, Mapping):
        return dict(kind)
    (schema,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return {**schema, **({"$defs": parts} if parts else {})}
