"""Runs that an earlier version of the code left are folded and gone on with, and come to what they did then."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from golden.record_histories import FOLDER, WANTED, gone_on_with
from trunkline_actors.workflow_timeline import Timeline
from trunkline_events.codec import CODEC
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.workflow import WorkflowFact
from trunkline_projections.workflows import Runs, evolve

KEPT = sorted(FOLDER.glob("*.jsonl"))
STATUS = {"completed": "completed", "failed": "failed", "cancelled": "cancelled"}


def test_every_history_that_is_wanted_is_kept() -> None:
    assert {path.stem for path in KEPT} >= WANTED.keys(), "run python -m golden.record_histories in tests/"


def events_of(path: Path) -> list[RecordedEvent]:
    lines: list[dict[str, Any]] = [msgspec.json.decode(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = [line for line in lines if "type" in line]
    return [
        RecordedEvent(
            sequence=sequence,
            id=line["id"],
            category="workflow",
            aggregate="run",
            type=line["type"],
            body=CODEC.decode(line["type"], msgspec.json.encode(line["body"])),
            time=line["time"],
            actor=line["actor"],
            cause=line["cause"],
        )
        for sequence, line in enumerate(told, 1)
    ]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_recorded_run_is_read_and_folded(path: Path) -> None:
    timeline, runs = Timeline("run"), dict[str, Any]()
    for event in events_of(path):
        assert not isinstance(event.body, Unknown), f"{event.type} can't be read any more"
        timeline.add(event)
        _fold(runs, event)
    assert timeline.run.status == STATUS.get(path.stem, "running")
    assert bool(runs) is (timeline.run.status == "running")


def _fold(runs: Runs, event: RecordedEvent) -> None:
    fact: WorkflowFact = event.body  # type: ignore[assignment]
    evolve(runs, fact, event.aggregate, event.sequence, event.time)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
async def test_a_recorded_run_is_gone_on_with_to_the_recorded_end(path: Path) -> None:
    expected = msgspec.json.decode((path.parent / f"{path.stem}.expected.json").read_bytes())
    assert await gone_on_with(path.read_text(encoding="utf-8")) == expected
