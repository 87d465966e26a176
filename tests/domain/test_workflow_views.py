"""Runs as they are looked at: which are under way and who leads them, and the timeline of one."""

from typing import Any

from given import NOON, recorded
from hypothesis import given as with_any
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors.workflow_timeline import Timeline, listed
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.workflow import (
    StepStarted,
    WorkflowFact,
    WorkflowResumed,
    WorkflowSignalled,
)
from trunkline_projections.workflows import OpenRun, Runs, evolve
from workflow_facts import CANCELLED, COMPLETED, ENDED, FACTS, FAILED, SPENT, STARTED, done, failed

SIGNALLED = WorkflowSignalled(workflow="w", name="s", value="v")
BEGUN = StepStarted(workflow="w", step="a", kind="llm", attempt=1)


def resumed(by: str, before: str = "one") -> WorkflowResumed:
    return WorkflowResumed(workflow="w", by=by, before=before, why="lost")


# -- which are under way


def under_way(*facts: WorkflowFact, run: str = "r", state: Runs | None = None) -> Runs:
    runs: Runs = {} if state is None else state
    for sequence, fact in enumerate(facts, 1):
        runs = evolve(runs, fact, run, sequence, NOON + sequence)
    return runs


def open_run(by: str, sequence: int) -> OpenRun:
    return OpenRun(workflow="w", by=by, functions=["f"], models=["m"], began=NOON + 1, sequence=sequence)


def test_a_run_is_under_way_from_its_beginning_to_its_end() -> None:
    assert under_way(STARTED) == {"r": open_run("one", 1)}
    for ended in ENDED:
        assert under_way(STARTED, ended) == {}


def test_who_leads_it_is_who_took_it_last_and_since_when() -> None:
    assert under_way(STARTED, resumed("two")) == {"r": open_run("two", 2)}
    assert under_way(STARTED, resumed("two"), resumed("", "two")) == {"r": open_run("", 3)}


def test_steps_and_signals_change_nothing_about_that() -> None:
    assert under_way(STARTED, BEGUN, done(), failed(), SIGNALLED) == {"r": open_run("one", 1)}


def test_one_that_ended_does_not_come_back_and_others_stay() -> None:
    state = under_way(STARTED, run="other")
    assert set(under_way(STARTED, COMPLETED, resumed("two"), FAILED, state=state)) == {"other"}


@with_any(st.lists(FACTS, max_size=20))
def test_no_sequence_of_facts_is_refused_by_either_view(facts: list[WorkflowFact]) -> None:
    under_way(*facts)
    timeline(*facts).shown(NOON)


# -- one of them


def timeline(*facts: Any) -> Timeline:
    """The events of a run, one a second."""
    told = Timeline("r")
    for sequence, fact in enumerate(facts, 1):
        told.add(structs.replace(_recorded(fact, sequence), time=NOON + sequence))
    return told


def _recorded(fact: Any, sequence: int) -> RecordedEvent:
    if not isinstance(fact, Unknown):
        return recorded(fact, sequence, "r", "workflow")
    return structs.replace(recorded(SIGNALLED, sequence, "r", "workflow"), body=fact)


def step(*facts: Any) -> dict[str, Any]:
    (only,) = timeline(STARTED, *facts).shown(NOON)["steps"]
    return dict(only)


def test_a_run_under_way_has_lasted_until_now() -> None:
    shown = timeline(STARTED).shown(NOON + 4)
    assert (shown["id"], shown["workflow"], shown["version"], shown["status"]) == ("r", "w", "v", "running")
    assert (shown["by"], shown["thread"], shown["key"]) == ("one", "t", "k")
    assert (shown["began_at"], shown["ended_at"]) == ("2026-11-21T12:00:01.000000Z", None)
    assert (shown["deadline"], shown["code"], shown["failed_step"]) == ("1970-01-01T00:00:09.000000Z", None, None)
    assert shown["metrics"]["duration_ms"] == 3_000.0


def test_one_that_has_ended_lasted_until_then() -> None:
    shown = timeline(STARTED, FAILED).shown(NOON + 99)
    assert (shown["status"], shown["code"], shown["failed_step"]) == ("failed", "busy", "a")
    assert (shown["ended_at"], shown["metrics"]["duration_ms"]) == ("2026-11-21T12:00:02.000000Z", 1_000.0)
    bare = timeline(structs.replace(STARTED, by="", key="", deadline=None), CANCELLED).shown(NOON)
    assert (bare["by"], bare["key"], bare["deadline"], bare["status"]) == (None, None, None, "cancelled")


def test_its_metrics_are_the_sums_of_its_steps() -> None:
    metrics = timeline(STARTED, failed(retry_at=NOON), done(attempt=2)).shown(NOON)["metrics"]
    assert (metrics["chats"], metrics["retries"], metrics["cost_usd"]) == (2, 1, "0.00000001")
    assert (metrics["usage"]["input_tokens"], metrics["usage"]["output_tokens"]) == (6, 4)


def test_a_step_is_running_from_its_beginning_to_its_end() -> None:
    running = step(BEGUN)
    assert (running["step"], running["kind"], running["status"], running["attempts"]) == ("a", "llm", "running", 1)
    assert (running["began_at"], running["ended_at"]) == ("2026-11-21T12:00:02.000000Z", None)
    over = step(BEGUN, done())
    assert (over["status"], over["ended_at"], over["busy_ms"]) == ("completed", "2026-11-21T12:00:03.000000Z", 7.0)
    assert (over["chats"], over["cost_usd"], over["code"]) == (SPENT.chats, "0.000000005", None)


def test_a_step_that_failed_waits_is_tried_again_and_its_attempts_add_up() -> None:
    waiting = [BEGUN, failed(retry_at=NOON)]
    again = [*waiting, structs.replace(BEGUN, attempt=2)]
    assert [step(*facts)["status"] for facts in (waiting, again)] == ["waiting", "running"]
    assert (step(*waiting)["code"], step(*again)["ended_at"]) == ("busy", None)
    over = step(*again, done(attempt=2))
    assert (over["status"], over["attempts"], over["busy_ms"], over["code"]) == ("completed", 2, 14.0, None)
    lost = step(*again, failed(attempt=2))
    assert (lost["status"], lost["code"]) == ("failed", "busy")


def test_a_step_that_was_passed_over_says_so_and_one_whose_beginning_is_missing_is_there() -> None:
    assert step(done(skipped=True))["status"] == "skipped"
    assert step(done())["kind"] == ""


def test_what_was_under_way_when_its_run_ended_is_cut_then() -> None:
    for ended in ENDED:
        for facts in ([BEGUN], [BEGUN, failed(retry_at=NOON)]):
            cut = step(*facts, ended)
            assert (cut["status"], cut["ended_at"]) == ("cut", f"2026-11-21T12:00:0{len(facts) + 2}.000000Z")
    assert step(BEGUN, done(), COMPLETED)["status"] == "completed"


def test_who_led_it_is_told_with_the_time_and_counted_without_the_time_that_nobody_did() -> None:
    told = timeline(STARTED, resumed(""), SIGNALLED, resumed("two", ""), resumed("one", "two"))
    assert told.led == [(NOON + 1, "one"), (NOON + 4, "two"), (NOON + 5, "one")]
    assert told.shown(NOON)["metrics"]["led_by"] == 2


def test_a_list_shows_a_run_by_its_last_event() -> None:
    of = {"id": "r", "workflow": "w", "seq": 9, "at": "2026-11-21T12:00:00.000000Z", "cost_usd": None}
    under = listed(_recorded(BEGUN, 9), open_run("one", 9), [])
    assert under == {**of, "status": "running", "by": "one", "waits_for": [], "duration_ms": None}
    free = listed(_recorded(SIGNALLED, 9), open_run("", 9), ["f"])
    assert (free["by"], free["waits_for"], free["status"]) == (None, ["f"], "running")
    for ended, status in zip(ENDED, ("completed", "failed", "cancelled"), strict=True):
        over = listed(_recorded(ended, 9), None, [])
        assert (over["status"], over["by"], over["cost_usd"], over["duration_ms"]) == (status, None, "0", 2_000.0)
    unknown = Unknown(name="workflow.new.v9", data=b"{}", problem="unknown")
    assert listed(_recorded(unknown, 9), None, [])["workflow"] == ""


def test_an_event_that_this_version_does_not_know_is_passed_over() -> None:
    unknown = Unknown(name="workflow.new.v9", data=b"{}", problem="unknown")
    assert timeline(STARTED, unknown).shown(NOON) == timeline(STARTED).shown(NOON)
