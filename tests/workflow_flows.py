"""Workflows for tests that kill their processes. Each call of a code step leaves a line in a file."""

import os
from pathlib import Path

from trunkline.workflows import LLMStep, MapStep, ParallelStep, Retry, TransformStep, Workflow

RETRY = Retry(attempts=20, first_s=0.1, factor=1.5, most_s=1.0)


def count(text: str) -> int:
    with Path(os.environ["FLOWS_CALLS"]).open("a", encoding="utf-8") as calls:
        calls.write(f"{text}\n")
    return len(text.split())


def join(parts: list[str], number: int) -> str:
    return f"{number}: {' | '.join(parts)}"


def echo(name: str, prompt: str) -> object:
    return LLMStep(name, prompt, model="echo", retry=RETRY)


JOB = Workflow(
    "job",
    [
        LLMStep("draft", "draft of {topic}", model="echo", retry=RETRY),
        TransformStep("number", count, {"text": "draft"}, retry=RETRY),
        ParallelStep(
            "both",
            [
                LLMStep("tone", "tone of {draft}", model="echo", retry=RETRY),
                LLMStep("facts", "facts of {draft}", model="echo", retry=RETRY),
            ],
        ),
        MapStep("parts", "list", [LLMStep("part", "{item} of {both.tone}", model="echo", retry=RETRY)]),
        TransformStep("joined", join, {"parts": "parts", "number": "number"}, retry=RETRY),
    ],
)


def expected(topic: str) -> str:
    """What an undisturbed run of it gives."""
    parts = [f"{item} of tone of draft of {topic}" for item in ("a", "b")]
    return f"{len(f'draft of {topic}'.split())}: {' | '.join(parts)}"
