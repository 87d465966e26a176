"""How a run is drawn while it goes on: what has ended scrolls away, what goes on is drawn over itself."""

import io
import re
from typing import Any

from trunkline.cli.workflow_progress import Steps
from trunkline_actors.workflow_model import Definition, Wait
from trunkline_events.envelope import RecordedEvent
from trunkline_events.usage import Usage
from trunkline_events.workflow import StepCompleted, StepFailed, StepStarted, WorkflowStarted

DEFINITION = Definition(name="w", steps=[Wait(name="wait", signal="approved")])


class Drawn:
    """A run drawn on a stream of 80 columns and 24 lines, at a time that is set."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.now = 100.0
        self.steps = Steps(DEFINITION, self.stream, lambda: self.now)
        self.steps.begun("r", "w")
        self.sequence = 0
        self.happens(WorkflowStarted(version="v", definition="d", input="i", thread="t", by="p", workflow="w"))

    def happens(self, *bodies: Any) -> None:
        for body in bodies:
            self.sequence += 1
            self.steps.heard(
                RecordedEvent(
                    id=str(self.sequence),
                    sequence=self.sequence,
                    time=self.now,
                    category="workflow",
                    aggregate="r",
                    type="",
                    actor="p",
                    cause="r",
                    body=body,
                )
            )

    def tick(self) -> list[str]:
        """The lines that the next drawing writes."""
        self.stream.truncate(0)
        self.stream.seek(0)
        self.steps.tick()
        return re.sub(r"\x1b\[[0-9]*[AJ]|\r", "", self.stream.getvalue()).splitlines()


def begins(name: str, attempt: int = 1) -> StepStarted:
    return StepStarted(workflow="w", step=name, kind="llm", attempt=attempt)


def ends(name: str, **more: Any) -> StepCompleted:
    usage = Usage(input_tokens=3, output_tokens=4)
    given = {"cost_nanos": 5_000, "usage": usage, "chats": 1, "duration_ms": 1500.0, "output": "o", **more}
    return StepCompleted(workflow="w", step=name, attempt=1, **given)


def test_a_step_that_has_ended_is_drawn_once_and_one_that_goes_on_again_and_again() -> None:
    run = Drawn()
    run.happens(begins("first"), ends("first"), begins("second"))
    run.now += 2
    assert run.tick() == ["✓ first   1.5 s  3 tokens in, 4 out  $0.000005", "⠙ second  2.0 s"]
    assert run.tick() == ["⠹ second  2.0 s"]
    assert "\x1b[1A" in run.stream.getvalue(), "over the line from before"


def test_what_failed_is_told_with_its_code_and_when_it_is_tried_again() -> None:
    run = Drawn()
    failed: dict[str, Any] = {"workflow": "w", "step": "s", "attempt": 1, "duration_ms": 10.0, "code": "busy"}
    run.happens(begins("s"), StepFailed(**failed, retry_at=103.0))
    assert run.tick() == ["… s  10 ms  busy, again in 3.0 s"]
    run.happens(begins("s", 2), StepFailed(**{**failed, "attempt": 2}, fatal=True))
    assert run.tick() == ["✗ s  20 ms  attempt 2  busy"]


def test_more_steps_at_once_than_the_terminal_has_lines_are_counted() -> None:
    run = Drawn()
    run.happens(*(begins(f"each/{number}/s") for number in range(60)))
    lines = run.tick()
    assert (len(lines), lines[-1]) == (22, "  and 39 more")


def test_a_line_is_no_longer_than_the_terminal_is_wide() -> None:
    run = Drawn()
    run.happens(begins("a/" * 60), ends("a/" * 60))
    (line,) = run.tick()
    assert len(line) < 80


def test_what_code_prints_stands_above_the_steps() -> None:
    run = Drawn()
    run.happens(begins("s"))
    print("from a step", file=run.steps)
    assert run.tick() == ["from a step", "⠙ s  0 ms"]
