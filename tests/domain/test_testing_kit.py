"""What ships for tests of others: decisions as given/when/then, callers by script, time that does not pass, costs."""

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest
from trunkline.testing import CostTracker, OverBudget, Reply, ScriptedCaller, VirtualTime, fails, given, hangs, says
from trunkline.testing.costs import LISTENERS
from trunkline_actors.workflow_code import Ask, Said, StepError
from trunkline_events.refusal import Refused

pytest_plugins = ["pytester"]


def test_importing_it_does_not_import_pytest() -> None:
    code = "import sys, trunkline.testing; sys.exit(bool({'pytest', 'hypothesis'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- decisions


def add(total: int, event: int) -> int:
    return total + event


def deposit(total: int) -> Any:
    return 1 if total < 3 else Refused(code="invalid_request", message="it is full", param="amount")


def test_given_events_when_something_is_decided_then_it_is_this_event_and_the_next_state() -> None:
    assert given([1, 1], add, 0).when(deposit).then(1).state == 3
    assert given([], add, 0).when(deposit).then(int).when(deposit).then(1).state == 2
    assert given([], add, 0).when(lambda _: [1, 2]).then(1, 2).state == 3
    assert given([5], add, 0).when(lambda _: None).then().state == 5


def test_a_refusal_is_told_by_its_code_its_field_and_its_words() -> None:
    full = given([3], add, 0)
    assert full.when(deposit).then_refused("invalid_request", "amount", "full").state == 3
    assert full.when(deposit).then(Refused).state == 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: given([], add, 0).when(deposit).then(2),
        lambda: given([], add, 0).when(deposit).then(),
        lambda: given([], add, 0).when(deposit).then(str),
        lambda: given([], add, 0).when(deposit).then_refused("conflict"),
        lambda: given([3], add, 0).when(deposit).then(1),
        lambda: given([3], add, 0).when(deposit).then_refused("conflict", "amount"),
        lambda: given([3], add, 0).when(deposit).then_refused("invalid_request"),
        lambda: given([3], add, 0).when(deposit).then_refused("invalid_request", "amount", "empty"),
    ],
)
def test_what_was_decided_otherwise_fails_the_test(wrong: Any) -> None:
    with pytest.raises(AssertionError):
        wrong()


# -- callers


def ask(step: str = "a", request_id: str = "r-1", **more: Any) -> Ask:
    body = {"model": "m", "messages": [{"role": "user", "content": f"about {step}"}]}
    return Ask(run="r", step=step, request_id=request_id, body=body, thread="t", **more)


async def text(caller: ScriptedCaller, *given_: Any, **more: Any) -> str:
    return (await caller.chat(ask(*given_, **more))).text


async def test_a_script_answers_by_the_path_of_a_step_exactly_or_by_a_pattern() -> None:
    caller = ScriptedCaller({"each/*/say": "one of many", "each/1/say": "the second", "b": {"n": 1}})
    assert [await text(caller, f"each/{n}/say", f"r-{n}") for n in (0, 1)] == ["one of many", "the second"]
    assert await text(caller, "b", "r-b") == '{"n":1}'
    with pytest.raises(StepError, match="the script has no answer for step 'c', only for each") as raised:
        await text(caller, "c", "r-c")
    assert (raised.value.code, raised.value.retryable) == ("unscripted", False)


async def test_one_answer_or_a_function_answers_for_all_steps() -> None:
    assert await text(ScriptedCaller("yes")) == "yes"
    assert await text(ScriptedCaller(lambda asked: asked.step)) == "a"

    async def late(asked: Ask) -> Said:
        return Said(data={"choices": [{"message": {"content": asked.thread}}]}, cost_nanos=7)

    caller = ScriptedCaller(late)
    assert await text(caller) == "t"
    assert caller.cost_usd == "0.000000007"


async def test_a_list_is_one_answer_for_each_chat_and_the_last_for_all_that_follow() -> None:
    caller = ScriptedCaller({"a": ["one", "two"]})
    assert [await text(caller, "a", f"r-{n}") for n in range(3)] == ["one", "two", "two"]


async def test_it_fails_so_many_times_with_a_code_or_always() -> None:
    caller = ScriptedCaller({"a": fails("busy", 2, then="ok"), "b": fails("closed", message="no", retryable=False)})
    for n in range(2):
        with pytest.raises(StepError) as raised:
            await text(caller, "a", f"r-{n}")
        assert (raised.value.code, raised.value.retryable) == ("busy", True)
    assert await text(caller, "a", "r-2") == "ok"
    for n in range(3):
        with pytest.raises(StepError, match="no") as raised:
            await text(caller, "b", f"s-{n}")
        assert (raised.value.code, raised.value.retryable) == ("closed", False)


async def test_the_same_chat_asked_again_gives_the_same_answer_at_no_cost() -> None:
    caller = ScriptedCaller({"a": [says("one", cost_usd="0.5", input_tokens=3), "two"]})
    first, again = await caller.chat(ask()), await caller.chat(ask())
    assert (first, first.usage.input_tokens, len(caller.asks), caller.cost_usd) == (again, 3, 1, "0.5")


async def test_what_was_asked_is_kept() -> None:
    caller = ScriptedCaller()
    for step in ("a", "each/0/b", "each/1/b"):
        await caller.chat(ask(step, f"r-{step}"))
    await caller.abort("r-a")
    assert caller.prompts("each/*") == ["about each/0/b", "about each/1/b"]
    assert ([one.step for one in caller.asked("a")], caller.aborted) == (["a"], ["r-a"])


async def test_an_answer_takes_its_time_by_the_clock_of_a_run_or_by_that_on_the_wall() -> None:
    caller = ScriptedCaller({"a": Reply(text="late", takes_s=0.01), "b": hangs()})
    began = time.monotonic()
    assert await text(caller) == "late"
    assert time.monotonic() - began >= 0.01
    with pytest.raises(StepError, match=r"no answer came within 0.01 s"):
        await text(caller, "b", "r-b", seconds=0.01)


# -- time


async def test_time_goes_to_what_is_next_when_all_that_is_under_way_sleeps() -> None:
    clock, changed = VirtualTime(0.0), asyncio.Event()
    sleeping = [asyncio.create_task(clock.sleep(seconds)) for seconds in (5.0, 9.0)]
    await clock.wait(changed, 7.0, busy=2)
    assert (clock(), sleeping[0].done(), sleeping[1].done()) == (7.0, True, False)
    sleeping[1].cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)
    await clock.wait(changed, 3.0, busy=0)
    assert clock() == 10.0


async def test_what_takes_real_time_is_waited_for_but_not_for_ever() -> None:
    clock, changed = VirtualTime(0.0), asyncio.Event()
    await clock.wait(changed, 0.02, busy=1)
    assert clock() == 0.02
    asyncio.get_running_loop().call_later(0.01, changed.set)
    await clock.wait(changed, 60.0, busy=1)
    assert clock() == 0.02


# -- costs


def test_a_tracker_sums_up_and_says_when_it_is_too_much() -> None:
    tracker = CostTracker("0.01")
    tracker.add("0.01")
    tracker.check()
    tracker.add("0.000000001")
    with pytest.raises(OverBudget, match=r"2 calls cost 0.010000001 US dollars; at most 0.01 were to be spent here"):
        tracker.check()
    tracker.limit("1")
    tracker.check()
    assert tracker.spent_usd == "0.010000001"


TESTS = """
import pytest
from trunkline.testing import ScriptedCaller, run_workflow, says
from trunkline.workflows import LLMStep, Workflow

TWO = Workflow("two", [LLMStep("a", "x"), LLMStep("b", "{a}")])

async def spend():
    await run_workflow(TWO, None, ScriptedCaller(says("ok", cost_usd="0.01")))

@pytest.mark.cost_budget("0.02")
async def test_within():
    await spend()

@pytest.mark.cost_budget("0.019")
async def test_over():
    await spend()

async def test_counted(cost_tracker):
    await spend()
    assert (cost_tracker.spent_usd, cost_tracker.calls) == ("0.02", 2)

async def test_over_its_own_limit(cost_tracker):
    cost_tracker.limit("0.01")
    await spend()

@pytest.mark.cost_budget("0.001")
async def test_that_fails_says_why_it_failed():
    await spend()
    assert False, "its own failure"

async def test_of_nothing():
    await spend()
"""


def test_a_test_that_costs_too_much_fails_and_no_other(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["trunkline.testing.plugin"]')
    pytester.makepyfile(TESTS)
    before = list(LISTENERS)
    options = ("-p", "no:randomly", "-p", "no:cacheprovider", "--strict-markers", "-o", "asyncio_mode=auto")
    result = pytester.runpytest_inprocess(*options, "-o", "asyncio_default_fixture_loop_scope=function")
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*OverBudget: 2 calls cost 0.02 US dollars; at most 0.019 were to be spent here",
            "*OverBudget: 2 calls cost 0.02 US dollars; at most 0.01 were to be spent here",
            "*AssertionError: its own failure",
        ]
    )
    assert before == LISTENERS
