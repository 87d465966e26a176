"""Who leads a run does what can be done, once, and says so; whoever comes after goes on. In memory, in no time."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given as with_any
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import Struct
from trunkline import errors
from trunkline.testing import Ran, ScriptedCaller, VirtualTime, fails, hangs, run_workflow, says
from trunkline.workflows import (
    LLMStep,
    Middleware,
    ParallelStep,
    Retry,
    StepContext,
    StepError,
    TransformStep,
    WaitStep,
    Workflow,
    WorkflowFailed,
)
from trunkline_actors.workflow_blobs import _key
from trunkline_events.workflow import StepCompleted
from workflow_examples import CALLS, INPUT, OUTPUT, SIGNALS, a_caller, a_workflow, shout

ONCE = Retry(attempts=1)
WHOLE = 37
"""Events of the whole example."""


def explode() -> None:
    raise ValueError("\ud800")


def gibberish() -> None:
    raise StepError("\ud800" * 1_000, "x")


def nameless() -> None:
    raise StepError(None, "x")  # type: ignore[arg-type]  # as somebody will


async def wait_for_what_was_cancelled() -> None:
    task = asyncio.ensure_future(never())
    task.cancel()
    await task


def odd() -> Any:
    return {1, object()}


async def never() -> None:
    await asyncio.Event().wait()


async def whole(**more: Any) -> Ran:
    CALLS.clear()
    return await run_workflow(a_workflow(), INPUT, more.pop("caller", a_caller()), signals=SIGNALS, **more)


# -- a run


async def test_a_run_comes_to_its_output_and_takes_no_time() -> None:
    began = time.monotonic()
    caller = a_caller()
    ran = await whole(caller=caller)
    assert (ran.status, ran.output, len(ran.events)) == ("completed", OUTPUT, WHOLE)
    assert ran.metrics["retries"] == 2
    assert (ran.metrics["chats"], ran.metrics["cost_usd"], caller.cost_usd) == (10, "0.019", "0.019")
    assert ran.metrics["duration_ms"] == 1_500.0, "two pauses between three attempts"
    assert (ran.step("skipped")["status"], ran.step("poor")["status"]) == ("skipped", "failed")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("until", range(2, WHOLE))
async def test_a_run_whose_process_dies_at_any_event_comes_to_the_same(until: int) -> None:
    caller = a_caller()
    ran = await whole(caller=caller, until=until)
    assert (ran.status, len(ran.events)) == ("running", until)
    ran = await ran.resume()
    assert (ran.status, ran.output) == ("completed", OUTPUT)
    assert (ran.metrics["chats"], ran.metrics["cost_usd"], caller.cost_usd) == (10, "0.019", "0.019")
    assert ran.metrics["led_by"] == 2
    ended = [event.body.step for event in ran.events if isinstance(event.body, StepCompleted)]
    assert len(set(ended)) == len(ended)


@settings(max_examples=15)
@with_any(st.lists(st.integers(1, 6), max_size=12))
def test_it_may_die_as_often_as_it_likes(lives: list[int]) -> None:
    async def die() -> None:
        caller = a_caller()
        ran = await whole(caller=caller, until=2)
        for more in lives:
            ran = await ran.resume(until=len(ran.events) + more)
        ran = await ran.resume()
        assert (ran.output, ran.metrics["cost_usd"], caller.cost_usd) == (OUTPUT, "0.019", "0.019")
        assert len([ask.request_id for ask in caller.asks]) == len({ask.request_id for ask in caller.asks})

    asyncio.run(die())


async def test_a_function_is_called_once_where_nobody_died() -> None:
    await whole()
    assert sorted(CALLS) == ["count", "shout"]


# -- what fails


async def failing(step: Any, *, input: Any = None, caller: ScriptedCaller | None = None, **more: Any) -> Ran:
    ran = await run_workflow(Workflow("w", [step], **more), input, caller)
    assert ran.status == "failed"
    return ran


async def test_a_model_that_is_busy_is_asked_again_after_pauses_that_grow() -> None:
    step = LLMStep("a", "x", retry=Retry(attempts=4, first_s=1, factor=10, most_s=60))
    ran = await failing(step, caller=ScriptedCaller(fails("busy")))
    assert (ran.code, ran.failed_step, ran.message, ran.step("a")["attempts"]) == ("busy", "a", "as the script says", 4)
    assert ran.metrics["duration_ms"] == 71_000.0
    with pytest.raises(WorkflowFailed, match="at 'a' \\(busy\\): as the script says"):
        ran.result()


async def test_what_can_not_go_better_next_time_is_not_tried_again() -> None:
    ran = await failing(LLMStep("a", "x"), caller=ScriptedCaller(fails("bad", retryable=False)))
    assert (ran.code, ran.step("a")["attempts"]) == ("bad", 1)


@pytest.mark.parametrize(
    ("step", "code", "message"),
    [
        (TransformStep("a", shout, {"draft": "doc.body"}), "invalid_input", "'doc' has no part '.body'"),
        (LLMStep("a", "{doc.body}"), "invalid_input", "'doc' has no part '.body'"),
        (TransformStep("a", explode, retry=ONCE), "code_failed", "raised ValueError: ?"),
        (TransformStep("a", gibberish, retry=ONCE), "?" * 100, "x"),
        (TransformStep("a", nameless, retry=ONCE), "None", "x"),
        (TransformStep("a", wait_for_what_was_cancelled, retry=ONCE), "internal", "cancelled"),
        (TransformStep("a", odd, retry=ONCE), "invalid_output", "can't be written as JSON"),
        (LLMStep("a", "x", output={"type": "object"}, retry=ONCE), "invalid_output", "does not fit the schema"),
    ],
)
async def test_a_step_that_can_not_be_done_fails_its_run_and_is_not_tried_for_ever(
    step: Any, code: str, message: str
) -> None:
    ran = await failing(step, input={"doc": {}})
    assert (ran.code, ran.failed_step) == (code, "a")
    assert message in (ran.message or "")


async def test_a_caller_that_breaks_is_a_step_that_failed() -> None:
    def breaks(ask: object) -> str:
        raise KeyError("oops")

    ran = await failing(LLMStep("a", "x"), caller=ScriptedCaller(breaks))
    assert (ran.code, ran.message, ran.step("a")["attempts"]) == ("internal", "KeyError: 'oops'", 3)


async def test_an_answer_that_does_not_fit_is_mended() -> None:
    caller = ScriptedCaller({"a": ["no json", says({"n": 1})]})
    ran = await run_workflow(Workflow("w", [LLMStep("a", "x", output={"type": "object"})]), None, caller)
    assert (ran.output, ran.metrics["chats"]) == ({"n": 1}, 2)
    assert "does not fit" in caller.prompts("a")[1]


async def test_an_output_that_is_not_there_fails_the_run_and_says_so() -> None:
    ran = await failing(LLMStep("a", "x"), output="a.title")
    assert (ran.code, ran.failed_step, ran.message) == (
        "invalid_output",
        None,
        "'a' has no part '.title'; it is a text",
    )


async def test_a_run_has_its_time_and_its_chats_are_aborted_then() -> None:
    caller = ScriptedCaller(hangs())
    ran = await failing(LLMStep("a", "x", timeout_s=7200), caller=caller, deadline_s=3600)
    assert (ran.code, ran.failed_step, ran.metrics["duration_ms"]) == ("timeout", None, 3_600_000.0)
    assert ran.step("a")["status"] == "cut"
    assert caller.aborted == [caller.asks[0].request_id]


async def test_a_step_has_its_time() -> None:
    ran = await failing(LLMStep("a", "x", timeout_s=30, retry=ONCE), caller=ScriptedCaller(hangs()))
    assert (ran.code, ran.failed_step, ran.metrics["duration_ms"]) == ("timeout", "a", 30_000.0)
    ran = await failing(TransformStep("a", never, timeout_s=0.01, retry=ONCE))
    assert (ran.code, ran.message) == ("timeout", "it took more than 0.01 s")


async def test_one_that_fails_cuts_those_beside_it() -> None:
    both = ParallelStep("p", [LLMStep("a", "x", retry=ONCE), LLMStep("b", "x")])
    caller = ScriptedCaller({"p/a": fails("busy", takes_s=5), "p/b": says("late", takes_s=10)})
    ran = await failing(both, caller=caller)
    assert (ran.failed_step, ran.step("p/b")["status"], len(caller.aborted)) == ("p/a", "cut", 1)
    soft = Workflow("w", [ParallelStep("p", [LLMStep("a", "x", retry=ONCE), LLMStep("b", "x")], critical=False)])
    caller = ScriptedCaller({"p/a": fails("busy", takes_s=5), "p/b": says("late", takes_s=10)})
    ran = await run_workflow(soft, None, caller)
    assert (ran.status, ran.output, ran.step("p/b")["status"], len(caller.aborted)) == ("completed", None, "cut", 1)


# -- waiting


ASKS = Workflow("asks", [WaitStep("approval", "approved"), LLMStep("done", "by {approval.who}")])


async def test_a_run_that_waits_is_left_and_gone_on_with_when_its_signal_came() -> None:
    ran = await run_workflow(ASKS)
    assert (ran.status, ran.waits_for, ran.kinds) == ("running", ["approved"], ["started"])
    await ran.signal("approved", {"who": "Ada"})
    caller = ScriptedCaller()
    ran = await ran.resume(caller)
    assert (ran.status, caller.prompts()) == ("completed", ["by Ada"])
    with pytest.raises(errors.Conflict):
        await ran.signal("approved", {"who": "Bob"})


async def test_a_signal_that_is_sent_again_counts_instead() -> None:
    """For a process that has read the first one too."""
    caller = ScriptedCaller()

    async def again(ask: Any) -> str:
        await ran.signal("approved", {"who": "Bob"})
        return "ok"

    late = Workflow("late", [LLMStep("first", "x"), *_steps_of_asks()])
    ran = await run_workflow(late, signals={"approved": {"who": "Ada"}}, until=2)
    caller = ScriptedCaller({"first": again, "done": "ok"})
    ran_on = await ran.resume(caller)
    assert (ran_on.status, caller.prompts("done")) == ("completed", ["by Bob"])


def _steps_of_asks() -> list[Any]:
    return [WaitStep("approval", "approved"), LLMStep("done", "by {approval.who}")]


async def test_a_run_that_waits_too_long_is_over() -> None:
    ran = await run_workflow(ASKS, deadline_s=3600)
    assert (ran.status, ran.metrics["duration_ms"]) == ("running", 0.0)
    ran = await ran.resume(after_s=3599)
    assert (ran.status, ran.metrics["duration_ms"]) == ("running", 3_599_000.0)
    ran = await ran.resume(after_s=1)
    assert (ran.status, ran.code, ran.failed_step) == ("failed", "timeout", None)


async def test_a_run_is_cancelled_once() -> None:
    ran = await run_workflow(ASKS)
    ran = await ran.cancel("a mistake")
    assert (ran.status, ran.code) == ("cancelled", "cancelled")
    assert (await ran.resume()).status == "cancelled"
    with pytest.raises(WorkflowFailed, match="cancelled"):
        ran.result()


# -- what else is there


async def test_an_output_that_was_lost_is_made_again_and_one_that_can_not_be_fails_the_run() -> None:
    workflow = Workflow("w", [LLMStep("a", "x", retry=ONCE), LLMStep("b", "{a}")])
    for script, expected in (({"*": "ok"}, ("completed", None)), ({"a": fails("busy")}, ("failed", "a"))):
        ran = await run_workflow(workflow, until=3)
        (lost,) = [event.body.output for event in ran.events if isinstance(event.body, StepCompleted)]
        forget(ran, lost)
        ran = await ran.resume(ScriptedCaller(script))
        assert (ran.status, ran.failed_step) == expected


def forget(ran: Ran, name: str) -> None:
    kept = ran.world.blobs._kept
    del kept[_key(ran.id, name)]


class Counts(Middleware):
    def __init__(self) -> None:
        self.steps: list[tuple[str, str, int]] = []

    async def on_step(self, step: StepContext, proceed: Any) -> Any:
        self.steps.append((step.step, step.kind, step.attempt))
        return await proceed()


async def test_middleware_stands_around_each_attempt() -> None:
    counts = Counts()
    await whole(middleware=[counts])
    assert counts.steps[:4] == [("draft", "llm", 1), ("draft", "llm", 2), ("draft", "llm", 3), ("loud", "code", 1)]


class Topic(Struct):
    topic: str


async def test_an_input_that_is_not_of_its_type_is_refused_and_an_output_is_given_as_its_type() -> None:
    step = LLMStep("a", "{topic}", output=Topic)
    workflow = Workflow("typed", [step], input=Topic, returns=Topic)
    ran = await run_workflow(workflow, Topic("foxes"), ScriptedCaller({"a": says({"topic": "bears"})}))
    assert (ran.output, ran.result().output) == (Topic("bears"), Topic("bears"))
    with pytest.raises(errors.InvalidRequest, match=r"input.topic: 3 is not of type 'string'"):
        await run_workflow(workflow, {"topic": 3})


async def test_time_goes_on_with_what_is_slow_side_by_side() -> None:
    both = ParallelStep("p", [LLMStep("a", "x"), LLMStep("b", "x"), TransformStep("c", shout, {"draft": "topic"})])
    caller = ScriptedCaller({"p/a": says("a", takes_s=60), "p/b": says("b", takes_s=90)})
    clock = VirtualTime(1_000.0)
    ran = await run_workflow(Workflow("w", [both]), {"topic": "t"}, caller, time=clock)
    assert (ran.output, ran.metrics["duration_ms"], clock()) == ({"a": "a", "b": "b", "c": "T"}, 90_000.0, 1_090.0)


async def test_a_step_that_raises_its_own_error_says_whether_it_may_go_better() -> None:
    ran = await failing(TransformStep("a", refuses))
    assert (ran.code, ran.message, ran.step("a")["attempts"]) == ("closed", "on Sundays", 1)


def refuses() -> None:
    raise StepError("closed", "on Sundays", retryable=False)
