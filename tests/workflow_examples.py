"""A workflow of every kind of step, and who answers for its models."""

from typing import Any

from trunkline.testing import ScriptedCaller, fails, says
from trunkline.workflows import (
    Condition,
    ConditionalStep,
    LLMStep,
    MapStep,
    ParallelStep,
    Retry,
    SubWorkflowStep,
    TransformStep,
    WaitStep,
    Workflow,
)

CALLS: list[str] = []
"""The functions that were called, since whoever wants to know cleared it."""


def shout(draft: str) -> str:
    CALLS.append("shout")
    return draft.upper()


async def count(text: str) -> dict[str, int]:
    CALLS.append("count")
    return {"words": len(text.split())}


INPUT = {"topic": "foxes", "list": ["a", "b", "c"], "no": False}
SIGNALS = {"approved": {"who": "Ada"}}
OUTPUT = "a long text, says Ada"


def a_workflow() -> Workflow:
    again = Workflow("again", [LLMStep("repeat", "{what}, says {who}")])
    return Workflow(
        "everything",
        [
            LLMStep("draft", "Write about {topic}"),
            TransformStep("loud", shout),
            ParallelStep("checks", [LLMStep("tone", "Tone: {loud}"), TransformStep("size", count, {"text": "draft"})]),
            ConditionalStep(
                "judged",
                Condition(value="checks.size.words", is_="above", to=1),
                [LLMStep("long", "a long text")],
                [LLMStep("short", "a short text")],
            ),
            MapStep("each", "list", [LLMStep("say", "{item}"), LLMStep("cry", "{say}!")], at_once=2),
            LLMStep("skipped", "x", when=Condition(value="no")),
            LLMStep("poor", "x", critical=False, retry=Retry(attempts=1)),
            WaitStep("approval", "approved"),
            SubWorkflowStep("inner", again, {"what": "judged", "who": "approval.who"}),
        ],
        output="inner",
        deadline_s=3_600,
    )


def echo(ask: Any) -> Any:
    """What it is asked, at a tenth of a cent."""
    return says(ask.body["messages"][-1]["content"], cost_usd="0.001")


def a_caller(busy: int = 2) -> ScriptedCaller:
    """Says what it is asked; `draft` fails so many times before, `poor` always."""
    return ScriptedCaller(
        {
            "draft": fails("busy", busy, then=says("all about foxes", cost_usd="0.01")),
            "poor": fails("refused", retryable=False),
            "*": echo,
        }
    )
