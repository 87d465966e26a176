"""What a run looks like while it runs, on stderr: a list of steps that fills in, or a line an event."""

import io
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from trunkline_actors.workflow_model import Definition, Wait
from trunkline_actors.workflow_timeline import StepLine, Timeline
from trunkline_actors.workflow_walk import leaves
from trunkline_events.envelope import RecordedEvent
from trunkline_events.money import usd_from_nanos
from trunkline_events.usage import Usage
from trunkline_events.workflow import StepCompleted, StepFailed, StepStarted, WorkflowResumed, WorkflowSignalled

from trunkline.cli.output import plain, say, styled
from trunkline.cli.progress import columns_of, duration

IDLE_S = 0.5
"""Seconds without a step under way after which it is said what a run waits for."""
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
MARKS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
    "waiting": ("…", "yellow"),
    "cut": ("–", "dim"),
}
LONGEST_NAME = 40


class Lines(io.TextIOBase):
    """A line an event, for what is no terminal. As a stream it takes what code of steps prints, and shows that too."""

    def __init__(self, definition: Definition, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._waits = [leaf.signal for leaf in leaves(definition.steps) if isinstance(leaf, Wait)]
        self._told = ""
        self._printed: deque[str] = deque()
        self._unfinished = ""
        self._changed = time.monotonic()
        self.timeline = Timeline("")

    def begun(self, run_id: str, workflow: str) -> None:
        """The run has an id."""
        self.timeline = Timeline(run_id)
        say(f"run {run_id} of {workflow!r}")

    def heard(self, event: RecordedEvent) -> None:
        """The next event of the run."""
        self.timeline.add(event)
        self._changed = time.monotonic()
        self.changed(event)

    def changed(self, event: RecordedEvent) -> None:
        """Show what an event has changed."""
        self._show_printed()
        if told := self._line(event):
            say(plain(told, self.stream))

    def tick(self) -> None:
        """Time has passed."""
        self._show_printed()
        waits = self.waits_for()
        if waits != self._told:
            self._told = waits
            if waits:
                say(plain(waits, self.stream))

    def end(self) -> None:
        """Leave what is shown as it is."""
        self._show_printed(whole=False)

    def write(self, text: str) -> int:
        self._printed.append(text)  # from whichever thread; shown by ours, between lines
        return len(text)

    def printed(self, *, whole: bool = True) -> str:
        """What code of steps has printed since, `whole` lines of it only; nothing, or something with a line end."""
        text = self._unfinished
        while self._printed:
            text += self._printed.popleft()
        lines, end, self._unfinished = text.rpartition("\n")
        if not whole and self._unfinished:
            lines, end, self._unfinished = text, "\n", ""
        return plain(lines + end, self.stream)

    def _show_printed(self, *, whole: bool = True) -> None:
        self.stream.write(self.printed(whole=whole))
        self.stream.flush()

    def waits_for(self) -> str:
        """What a run waits for in which nothing is done."""
        busy = any(line.status in ("running", "waiting") for line in self.timeline.steps.values())
        run = self.timeline.run
        if busy or run.status != "running" or not run.id or time.monotonic() - self._changed < IDLE_S:
            return ""
        signals = [name for name in dict.fromkeys(self._waits) if name not in run.signals]
        if not signals:
            return ""
        return f"waits for: trunkline workflows signal {run.id} {' or '.join(signals)} --value JSON"

    def _line(self, event: RecordedEvent) -> str:
        body = event.body
        match body:
            case StepStarted():
                return f"{body.step} started" + (f", attempt {body.attempt}" if body.attempt > 1 else "")
            case StepCompleted(skipped=True):
                return f"{body.step} skipped"
            case StepCompleted():
                spent = figures(body.duration_ms, body.usage, body.cost_nanos)
                return f"{body.step} completed: {', '.join(spent)}"
            case StepFailed(retry_at=None):
                return f"{body.step} failed ({body.code})"
            case StepFailed(retry_at=float(again)):
                return f"{body.step} failed ({body.code}), again in {seconds(max(0.0, again - event.time))}"
            case WorkflowSignalled():
                return f"signal {body.name}"
            case WorkflowResumed():
                return f"led by {body.by} now" if body.by else "nobody leads it now"
        return ""


class Steps(Lines):
    """The steps, drawn over themselves on a terminal: those that have ended scroll away, the others fill in."""

    def __init__(
        self, definition: Definition, stream: TextIO | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(definition, stream)
        self._clock = clock
        self._drawn = self._ended = self._turn = 0

    def changed(self, event: RecordedEvent) -> None:
        pass  # drawn at the next tick: several events may come at once

    def tick(self) -> None:
        self._turn += 1
        self._draw()

    def end(self) -> None:
        self._draw(whole=False)
        self._drawn = 0

    def _draw(self, *, whole: bool = True) -> None:
        columns, lines = _size(self.stream)
        steps = list(self.timeline.steps.values())
        width = min(LONGEST_NAME, max((len(line.step) for line in steps), default=0))
        out = [f"\x1b[{self._drawn}A\r" if self._drawn else "\r", "\x1b[J"]
        out.append(self.printed(whole=whole))  # above the steps
        while self._ended < len(steps) and steps[self._ended].ended is not None and not _again(steps[self._ended]):
            out.append(self._step(steps[self._ended], width, columns) + "\n")
            self._ended += 1
        live = steps[self._ended :]
        shown = [self._step(line, width, columns) for line in live[: max(1, lines - 3)]]
        if len(live) > len(shown):
            shown.append(styled(f"  and {len(live) - len(shown)} more", "dim", self.stream))
        if waits := self.waits_for():
            shown.append(styled(f"… {waits}", "yellow", self.stream)[: columns + 8])
        self._drawn = len(shown)
        out += [f"{line}\n" for line in shown]
        self.stream.write("".join(out))
        self.stream.flush()

    def _step(self, line: StepLine, width: int, columns: int) -> str:
        mark, style = MARKS.get(line.status, (SPINNER[self._turn % len(SPINNER)], "cyan"))
        now = self._clock()
        busy = max(0.0, now - line.began) * 1000 if line.status == "running" else line.busy_ms
        words = [] if line.status == "skipped" else figures(busy, line.spent.usage, line.spent.cost_nanos)
        if line.attempts > 1:
            words.append(f"attempt {line.attempts}")
        if line.status == "waiting":
            again = self.timeline.run.retry_at.get(line.step, now)
            words.append(f"{line.code}, again in {seconds(max(0.0, again - now))}")
        elif line.status in ("failed", "skipped", "cut"):
            words.append(line.code if line.status == "failed" and line.code else line.status)
        name = line.step if len(line.step) <= width else f"…{line.step[1 - width :]}"
        text = plain(f"{name:<{width}}  {'  '.join(words)}", self.stream)[: columns - 3]
        return f"{styled(mark, style, self.stream)} {text}"


def shown_on(stream: TextIO, definition: Definition) -> Lines:
    """What shows a run on this stream."""
    return Steps(definition, stream) if stream.isatty() else Lines(definition, stream)


def figures(busy_ms: float, usage: Usage, cost_nanos: int) -> list[str]:
    """Time, tokens and cost for a reader, those that there are."""
    words = [seconds(busy_ms / 1000)]
    if usage.input_tokens or usage.output_tokens:
        words.append(f"{usage.input_tokens} tokens in, {usage.output_tokens} out")
    if cost_nanos:
        words.append(f"${usd_from_nanos(cost_nanos)}")
    return words


def seconds(span: float) -> str:
    """A span of time for a reader: `12 ms`, `1.2 s`, `2:05`."""
    if span < 1:
        return f"{span * 1000:.0f} ms"
    return f"{span:.1f} s" if span < 60 else duration(span)


def _again(line: StepLine) -> bool:
    return line.status in ("running", "waiting")


def _size(stream: TextIO) -> tuple[int, int]:
    lines = 24
    with suppress(OSError, ValueError):
        lines = os.get_terminal_size(stream.fileno()).lines or lines
    return columns_of(stream), lines
