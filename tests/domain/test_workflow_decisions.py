"""A run of a workflow: given its events, when something is decided about it, then an event, a refusal, or nothing."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
from given import NOON
from hypothesis import given as with_any
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trunkline_actors import workflow as rules
from trunkline_actors.workflow import MOST_SIGNALS, NOTHING, Attempt, Done, Run, Spent, Trouble
from trunkline_events.refusal import Refused
from trunkline_events.usage import Usage
from trunkline_events.workflow import (
    StepCompleted,
    StepFailed,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowEnded,
    WorkflowFact,
    WorkflowFailed,
    WorkflowResumed,
    WorkflowSignalled,
    WorkflowStarted,
)
from workflow_facts import (
    CANCELLED,
    COMPLETED,
    ENDED,
    FACTS,
    FAILED,
    LATER,
    SPENT,
    STARTED,
    a_run,
    before,
    done,
    failed,
    fold,
    names,
    over,
    overs,
    steps,
)

Decide = Callable[[Run], Any]
BY_THE_LEADER: dict[str, Callable[[str], Decide]] = {
    "begin": lambda by: lambda run: rules.begin(run, by, "a", "llm"),
    "complete": lambda by: lambda run: rules.complete(run, by, over(), "o"),
    "fail": lambda by: lambda run: rules.fail(run, by, over(), Trouble(code="busy"), NOON),
    "finish": lambda by: lambda run: rules.finish(run, by, "o", LATER),
    "give up": lambda by: lambda run: rules.give_up(run, by, "a", "busy", "", LATER),
}
BY_ANYBODY: dict[str, Decide] = {
    "take": lambda run: rules.take(run, "two", "one", "lost"),
    "signal": lambda run: rules.signal(run, "s", "v", "ada"),
    "cancel": lambda run: rules.cancel(run, "ada", None, LATER),
}


# -- who decides, and when


@pytest.mark.parametrize("what", BY_THE_LEADER)
def test_only_who_leads_a_run_decides_about_its_steps_and_its_end(what: str) -> None:
    decide = BY_THE_LEADER[what]
    a_run().when(decide("two")).then_refused("conflict", says="another process leads this run now")
    resumed = WorkflowResumed(workflow="w", by="two", before="one", why="lost")
    a_run(resumed).when(decide("one")).then_refused("conflict", says="another process leads this run now")
    assert not isinstance(a_run(resumed).when(decide("two")).decided, Refused)


@pytest.mark.parametrize("what", [*BY_THE_LEADER, "take", "signal"])
@pytest.mark.parametrize("ended", ENDED, ids=lambda fact: type(fact).__name__)
def test_nothing_is_decided_about_a_run_that_has_ended(what: str, ended: WorkflowFact) -> None:
    decide = BY_THE_LEADER[what]("one") if what in BY_THE_LEADER else BY_ANYBODY[what]
    a_run(ended).when(decide).then_refused("conflict", says="this run has ended")


@pytest.mark.parametrize("what", [*BY_THE_LEADER, *BY_ANYBODY])
@pytest.mark.parametrize("by", ["", "one"])
def test_nothing_is_decided_about_a_run_that_was_not_begun(what: str, by: str) -> None:
    decide = BY_THE_LEADER[what](by) if what in BY_THE_LEADER else BY_ANYBODY[what]
    before().when(decide).then_refused("not_found", "id", "see `trunkline workflows list`")
    before().when(lambda run: rules.take(run, "two", "", "left")).then_refused("not_found", "id")


# -- begun


def test_a_run_is_begun_as_it_was_asked_for() -> None:
    run = before().when(lambda run: rules.start(run, STARTED)).then(STARTED).state
    assert (run.id, run.workflow, run.version, run.definition, run.input) == ("r", "w", "v", "d", "i")
    assert (run.thread, run.by, run.functions, run.key, run.deadline) == ("t", "one", ["f"], "k", 9.0)
    assert (run.status, run.began) == ("running", NOON)


def test_the_same_run_is_begun_once_and_another_one_not_under_its_id() -> None:
    a_run().when(lambda run: rules.start(run, STARTED)).then()
    a_run(COMPLETED).when(lambda run: rules.start(run, STARTED)).then()
    for change in ({"workflow": "x"}, {"version": "x"}, {"input": "x"}):
        other = WorkflowStarted(**{**{f: getattr(STARTED, f) for f in STARTED.__struct_fields__}, **change})
        refused = a_run().when(lambda run, other=other: rules.start(run, other))  # type: ignore[misc]
        refused.then_refused("conflict", "id", "there is a run 'r' of something else; use another id")


# -- led


def test_a_run_is_taken_from_who_led_it() -> None:
    event = WorkflowResumed(workflow="w", by="two", before="one", why="lost")
    assert a_run().when(BY_ANYBODY["take"]).then(event).state.by == "two"


def test_a_run_is_let_go_and_taken_by_who_wants_it() -> None:
    let_go = WorkflowResumed(workflow="w", by="", before="one", why="left")
    free = a_run().when(lambda run: rules.take(run, "", "one", "left")).then(let_go)
    taken = free.when(lambda run: rules.take(run, "two", "", "left")).then(WorkflowResumed)
    taken.when(lambda run: rules.take(run, "three", "", "left")).then_refused("conflict")


def test_who_leads_a_run_already_takes_nothing_and_who_was_too_late_is_told() -> None:
    a_run().when(lambda run: rules.take(run, "one", "zero", "lost")).then()
    a_run().when(lambda run: rules.take(run, "two", "zero", "lost")).then_refused("conflict", says="another process")


# -- steps


def test_a_step_begins_for_the_first_time_and_after_failures_for_the_next() -> None:
    begin = BY_THE_LEADER["begin"]("one")
    a_run().when(begin).then(StepStarted(workflow="w", step="a", kind="llm", attempt=1))
    after = a_run(failed(retry_at=NOON), failed(attempt=2, retry_at=NOON))
    after.when(begin).then(StepStarted(workflow="w", step="a", kind="llm", attempt=3))


@pytest.mark.parametrize("end", [done(), failed()], ids=["completed", "failed"])
def test_a_step_ends_once(end: WorkflowFact) -> None:
    for what in ("begin", "complete", "fail"):
        a_run(end).when(BY_THE_LEADER[what]("one")).then()


def test_a_step_has_its_output_and_what_it_used() -> None:
    run = a_run().when(BY_THE_LEADER["complete"]("one")).then(done()).state
    assert (run.done, run.spent) == ({"a": Done(output="o")}, SPENT)


def test_a_step_is_passed_over() -> None:
    decide: Decide = lambda run: rules.complete(run, "one", over(spent=Spent()), "", skipped=True)  # noqa: E731
    assert a_run().when(decide).then(StepCompleted).state.done == {"a": Done(skipped=True)}


def test_a_step_that_failed_is_tried_again_after_its_pause() -> None:
    trouble = Trouble(code="busy", detail="words", pause=1.5, fatal=True)
    event = failed(retry_at=NOON + 1.5, detail="words")
    run = a_run().when(lambda run: rules.fail(run, "one", over(), trouble, NOON)).then(event).state
    assert (run.failures, run.retry_at, run.done, run.retries) == ({"a": 1}, {"a": NOON + 1.5}, {}, 1)
    assert run.spent == SPENT


@pytest.mark.parametrize("fatal", [True, False])
def test_a_step_that_is_not_tried_again_failed_for_good(fatal: bool) -> None:
    trouble = Trouble(code="busy", detail="words", fatal=fatal)
    event = failed(detail="words", fatal=fatal)
    run = a_run().when(lambda run: rules.fail(run, "one", over(), trouble, NOON)).then(event).state
    assert (run.done, run.retries) == ({"a": Done(code="busy", detail="words")}, 0)


def test_a_failure_counts_once_however_often_it_is_told() -> None:
    """The log forgets the ids of events after a while: the append may have been stored without an answer."""
    known = a_run(failed(retry_at=NOON))
    known.when(BY_THE_LEADER["fail"]("one")).then()
    known.when(lambda run: rules.fail(run, "one", over(attempt=2), Trouble(code="busy"), NOON)).then(StepFailed)


def test_who_tells_of_a_step_does_not_change_what_another_one_came_to() -> None:
    run = a_run(done("a"), failed("b", retry_at=NOON), failed("c"), failed("b", 2)).state
    assert set(run.done) == {"a", "b", "c"}
    assert (run.failures, run.spent.chats, run.spent.cost_nanos) == ({"b": 2, "c": 1}, 4, 20)


# -- signals


def test_a_run_is_told_something_and_the_last_of_the_same_name_counts() -> None:
    told = a_run().when(BY_ANYBODY["signal"]).then(WorkflowSignalled(workflow="w", name="s", value="v", by="ada"))
    told.when(BY_ANYBODY["signal"]).then()
    other = told.when(lambda run: rules.signal(run, "s", "other", "ada")).then(WorkflowSignalled)
    assert other.state.signals == {"s": "other"}


def test_a_run_takes_only_so_many_signals() -> None:
    full = a_run(*(WorkflowSignalled(workflow="w", name=f"s{n}", value="v") for n in range(MOST_SIGNALS)))
    full.when(BY_ANYBODY["signal"]).then_refused("invalid_request", "name", "a run takes at most 1,000 signals")
    full.when(lambda run: rules.signal(run, "s1", "other", "ada")).then(WorkflowSignalled)


# -- ends


def test_a_run_ends_with_the_sums_of_its_steps() -> None:
    sums = {**SPENT_TWICE, "retries": 1, "workflow": "w", "duration_ms": 2_000.0}
    steps = a_run(failed(retry_at=NOON), done(attempt=2))
    run = steps.when(BY_THE_LEADER["finish"]("one")).then(WorkflowCompleted(**sums, output="o")).state
    assert (run.status, run.output, run.ended) == ("completed", "o", NOON)
    gone = steps.when(BY_THE_LEADER["give up"]("one")).then(WorkflowFailed(**sums, code="busy", step="a")).state
    assert (gone.status, gone.code, gone.ended_by) == ("failed", "busy", "a")
    cancelled = steps.when(BY_ANYBODY["cancel"]).then(WorkflowCancelled(**sums, by="ada")).state
    assert (cancelled.status, cancelled.code) == ("cancelled", "cancelled")


SPENT_TWICE: dict[str, Any] = {"usage": Usage(input_tokens=6, output_tokens=4), "cost_nanos": 10, "chats": 2}


def test_a_clock_that_went_back_makes_no_run_shorter_than_nothing() -> None:
    ended = a_run().when(lambda run: rules.finish(run, "one", "o", NOON - 5)).decided
    assert ended.duration_ms == 0.0


def test_a_run_is_cancelled_once_and_not_after_its_end() -> None:
    a_run(CANCELLED).when(BY_ANYBODY["cancel"]).then()
    for ended in (COMPLETED, FAILED):
        a_run(ended).when(BY_ANYBODY["cancel"]).then_refused("conflict", says="this run has ended")


# -- anything, in any order


@with_any(st.lists(FACTS, max_size=30))
def test_no_sequence_of_facts_is_refused_by_the_fold(facts: list[WorkflowFact]) -> None:
    run = NOTHING
    for fact in facts:
        run = fold(run, fact)
    ends = [fact for fact in facts if isinstance(fact, StepCompleted | StepFailed)]
    if not any(isinstance(fact, WorkflowStarted) for fact in facts):
        assert run.spent == sum(map(rules.spent_by, ends), Spent())


class TwoLeaders(RuleBasedStateMachine):
    """Two processes decide about one run, each from what it has read; the log takes no decision from an older state."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[WorkflowFact] = []
        self.seen = {"one": 0, "two": 0, "ada": 0}

    def run_at(self, position: int) -> Run:
        return reduce(fold, self.log[:position], NOTHING)

    def decides(self, who: str, decide: Decide) -> None:
        decision = decide(self.run_at(self.seen[who]))
        if decision is None or isinstance(decision, Refused):
            return
        if self.seen[who] == len(self.log):  # else it is a conflict: it reads on
            self.log.append(decision)

    @rule(who=st.sampled_from(["one", "two", "ada"]))
    def reads(self, who: str) -> None:
        self.seen[who] = len(self.log)

    @rule(who=names, by=names)
    def starts(self, who: str, by: str) -> None:
        started = WorkflowStarted(workflow="w", version="v", definition="d", input="i", thread="t", by=by)
        self.decides(who or "ada", lambda run: rules.start(run, started))

    @rule(who=st.sampled_from(["one", "two"]), by=names, before=names)
    def takes(self, who: str, by: str, before: str) -> None:
        self.decides(who, lambda run: rules.take(run, by, before, "lost"))

    @rule(who=st.sampled_from(["one", "two"]), step=steps)
    def begins(self, who: str, step: str) -> None:
        self.decides(who, lambda run: rules.begin(run, who, step, "llm"))

    @rule(who=st.sampled_from(["one", "two"]), over=overs, skipped=st.booleans())
    def completes(self, who: str, over: Attempt, skipped: bool) -> None:
        self.decides(who, lambda run: rules.complete(run, who, over, "o", skipped=skipped))

    @rule(who=st.sampled_from(["one", "two"]), over=overs, pause=st.none() | st.floats(0, 5), fatal=st.booleans())
    def fails(self, who: str, over: Attempt, pause: float | None, fatal: bool) -> None:
        trouble = Trouble(code="busy", pause=pause, fatal=fatal)
        self.decides(who, lambda run: rules.fail(run, who, over, trouble, NOON))

    @rule(name=steps, value=names)
    def signals(self, name: str, value: str) -> None:
        self.decides("ada", lambda run: rules.signal(run, name, value, "ada"))

    @rule(who=st.sampled_from(["one", "two"]), rarely=st.integers(0, 9), well=st.booleans())
    def ends(self, who: str, rarely: int, well: bool) -> None:
        if not rarely:
            self.decides(
                who,
                lambda run: (
                    rules.finish(run, who, "o", LATER) if well else rules.give_up(run, who, "", "timeout", "", LATER)
                ),
            )

    @rule(rarely=st.integers(0, 9))
    def cancels(self, rarely: int) -> None:
        if not rarely:
            self.decides("ada", lambda run: rules.cancel(run, "ada", None, LATER))

    @invariant()
    def a_run_is_begun_first_and_ended_last(self) -> None:
        kinds = [type(fact) for fact in self.log]
        assert kinds[:1] in ([], [WorkflowStarted])
        assert kinds.count(WorkflowStarted) == bool(kinds)
        ended = [place for place, fact in enumerate(self.log) if isinstance(fact, WorkflowEnded)]
        assert ended in ([], [len(self.log) - 1])

    @invariant()
    def a_step_ends_once_and_begins_no_more(self) -> None:
        over: set[str] = set()
        for fact in self.log:
            if isinstance(fact, StepStarted | StepCompleted | StepFailed):
                assert fact.step not in over
                if isinstance(fact, StepCompleted) or (isinstance(fact, StepFailed) and fact.retry_at is None):
                    over.add(fact.step)

    @invariant()
    def one_leads_at_a_time(self) -> None:
        by = ""
        for fact in self.log:
            if isinstance(fact, WorkflowResumed):
                assert fact.before == by
                assert fact.by != by
            by = fact.by if isinstance(fact, WorkflowStarted | WorkflowResumed) else by
        assert self.run_at(len(self.log)).by == by

    @invariant()
    def the_sums_are_those_of_the_steps(self) -> None:
        ends = [fact for fact in self.log if isinstance(fact, StepCompleted | StepFailed)]
        run = self.run_at(len(self.log))
        assert run.spent == sum(map(rules.spent_by, ends), Spent())
        assert run.retries == sum(isinstance(fact, StepFailed) and fact.retry_at is not None for fact in ends)


TestTwoLeaders = TwoLeaders.TestCase
