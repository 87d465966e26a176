"""Workflows on the bus: what they come to, what they cost, and who goes on with them when their process is gone."""

import asyncio
import sys
import threading
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from audit import check_books, events, history, kinds
from far import serving
from msgspec import Struct
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline.workflows import (
    Condition,
    ConditionalStep,
    Engine,
    LLMStep,
    MapStep,
    Middleware,
    ParallelStep,
    Retry,
    StepError,
    SubWorkflowStep,
    TransformStep,
    WaitStep,
    Workflow,
    WorkflowFailed,
)
from trunkline_actors.workflow_code import CodeBook, name_of
from upstream import Upstream, answer

pytest_plugins = ["gateway", "workflow_kit"]


def shout(draft: str) -> str:
    return draft.upper()


def count(text: str) -> dict[str, int]:
    return {"words": len(text.split())}


TRIES: dict[str, int] = {}


def unsteady(name: str) -> str:
    TRIES[name] = TRIES.get(name, 0) + 1
    if TRIES[name] < 3:
        raise StepError("busy", "not yet")
    return f"{name} after {TRIES[name]}"


async def never() -> None:
    await asyncio.Event().wait()


def echo(name: str, prompt: str, **more: Any) -> Any:
    return LLMStep(name, prompt, model="echo", **more)


QUICK = Retry(attempts=3, first_s=0.01)

EVERYTHING = Workflow(
    "everything",
    [
        echo("draft", "Write about {topic}"),
        TransformStep("loud", shout),
        ParallelStep("checks", [echo("tone", "Tone: {loud}"), TransformStep("size", count, {"text": "draft"})]),
        ConditionalStep(
            "judged",
            Condition(value="checks.size.words", is_="above", to=2),
            [echo("long", "long: {checks.tone}")],
            [echo("short", "short")],
        ),
        MapStep("each", "list", [echo("say", "{item}!"), TransformStep("cry", shout, {"draft": "say"})]),
        SubWorkflowStep("inner", Workflow("inner", [echo("repeat", "again {what}")]), {"what": "judged"}),
    ],
    output="inner",
)


async def test_a_workflow_of_every_kind_of_step_gives_its_output_and_says_what_it_cost(engine: Engine) -> None:
    heard: list[str] = []
    given = {"topic": "foxes", "list": ["a", "b", "c"]}
    result = await engine.run(EVERYTHING, given, on_event=lambda event: heard.append(event.type))
    assert result.output == "again long: Tone: WRITE ABOUT FOXES"
    assert (result.metrics["chats"], result.metrics["retries"], result.metrics["led_by"]) == (7, 0, 1)
    assert float(result.metrics["cost_usd"]) == pytest.approx(
        sum(float(step["cost_usd"]) for step in result.steps), abs=1e-9
    )
    assert [step["step"] for step in result.steps][:3] == ["draft", "loud", "checks/tone"]
    assert {step["status"] for step in result.steps} == {"completed"}
    assert (heard[0], heard[-1]) == ("workflow.started.v1", "workflow.completed.v1")


async def test_its_chats_are_its_threads_and_the_books_agree(engine: Engine, gw: Gateway) -> None:
    result = await engine.run(EVERYTHING, {"topic": "foxes", "list": ["a"]}, thread="t")
    books = await history(gw, "t")
    check_books(books)
    assert kinds(books).count("usage-recorded") == result.metrics["chats"]
    thread = await gw.threads.get(thread_id="t")
    assert thread["settled_usd"] == result.metrics["cost_usd"] or thread["limit_usd"] is None


async def test_no_prompt_and_no_answer_is_in_the_log(engine: Engine, gw: Gateway) -> None:
    await engine.run(EVERYTHING, {"topic": "XYZZY", "list": []})
    assert not [event for event in await events(gw) if "XYZZY" in str(event.body).upper()]


async def test_what_fails_is_tried_again_after_a_while_and_its_failures_are_recorded(engine: Engine) -> None:
    TRIES.clear()
    workflow = Workflow("unsteady", [TransformStep("step", unsteady, retry=QUICK)])
    result = await engine.run(workflow, {"name": "n"})
    assert (result.output, result.metrics["retries"]) == ("n after 3", 2)
    assert result.steps[0]["attempts"] == 3


async def test_a_step_that_fails_for_good_fails_its_run_unless_the_run_can_do_without(engine: Engine) -> None:
    TRIES.clear()
    once = Retry(attempts=1)
    with pytest.raises(WorkflowFailed, match="at 'step' \\(busy\\): not yet") as failed:
        await engine.run(Workflow("strict", [TransformStep("step", unsteady, retry=once)]), {"name": "a"})
    assert (failed.value.step, failed.value.result.steps[0]["code"]) == ("step", "busy")
    lenient = [TransformStep("step", unsteady, retry=once, critical=False), echo("after", "still: {step}")]
    assert (await engine.run(Workflow("lenient", lenient), {"name": "b"})).output == "still: null"


async def test_a_step_has_its_time_and_so_has_a_run(engine: Engine) -> None:
    hung = Workflow("hung", [TransformStep("step", never, timeout_s=0.05, retry=Retry(attempts=1))])
    with pytest.raises(WorkflowFailed) as failed:
        await engine.run(hung)
    assert (failed.value.code, failed.value.step) == ("timeout", "step")
    slow = Workflow("slow", [TransformStep("step", never)], deadline_s=0.2)
    with pytest.raises(WorkflowFailed) as failed:
        await engine.run(slow)
    assert (failed.value.code, failed.value.step) == ("timeout", None)


class Verdict(Struct):
    score: int
    why: str


def said(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


async def test_an_answer_that_does_not_fit_is_mended_and_given_as_its_type(engine: Engine, gw: Gateway) -> None:
    wrong, right = answer(said('{"score": "high"}')), answer(said('```json\n{"score": 7, "why": "clear"}\n```'))
    async with serving(gw, Upstream(wrong, right, wrong)) as upstream:
        await gw.models.update(id="m", features=["json_schema"])
        step = LLMStep("judge", "Judge {text}", output=Verdict, model="m")
        result = await engine.run(Workflow("judged", [step], returns=Verdict), {"text": "it"})
        assert result.output == Verdict(7, "clear")
        assert result.metrics["chats"] == 2
        assert b"does not fit" in upstream.requests[1].body
        once = LLMStep("judge", "Judge {text}", output=Verdict, model="m", repairs=1, retry=Retry(attempts=1))
        with pytest.raises(WorkflowFailed, match="does not fit the schema"):
            await engine.run(Workflow("hopeless", [once]), {"text": "it"})


class Topic(Struct):
    topic: str
    tags: list[str] = []


async def test_an_input_that_is_not_of_its_type_is_refused_before_the_first_step(engine: Engine, gw: Gateway) -> None:
    typed = Workflow("typed", [echo("draft", "{topic}")], input=Topic)
    assert (await engine.run(typed, Topic("foxes"))).output == "foxes"
    with pytest.raises(errors.InvalidRequest, match=r"input.topic: 3 is not of type 'string'"):
        await engine.run(typed, {"topic": 3})
    assert not [event for event in await events(gw, "workflow") if event.type == "workflow.failed.v1"]


async def test_a_budget_of_a_run_can_not_be_exceeded(engine: Engine, gw: Gateway) -> None:
    steps = [echo(f"s{number}", "word " * 50, parameters={"max_tokens": 60}) for number in range(10)]
    with pytest.raises(WorkflowFailed) as failed:
        await engine.run(Workflow("dear", steps, budget_usd="0.002"), id="r")
    assert failed.value.code == "budget_exceeded"
    assert float((await gw.threads.get(thread_id="wf-r"))["settled_usd"]) <= 0.002


async def test_a_budget_of_a_workflow_changes_no_thread_of_others(engine: Engine, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.50"})
    with pytest.raises(errors.InvalidRequest, match="a thread of its own"):
        await engine.run(Workflow("w", [echo("s", "x")], budget_usd="1000"), thread="t")
    assert (await gw.threads.get(thread_id="t"))["limit_usd"] == "0.5"


async def test_a_run_has_time_of_a_length_that_makes_sense(engine: Engine) -> None:
    for seconds in (-1.0, 1e9):
        with pytest.raises(errors.InvalidRequest, match="deadline_s: must be more than 0 seconds"):
            await engine.run(Workflow("w", [echo("s", "x")]), deadline_s=seconds)


async def test_a_run_begun_for_others_is_led_by_none_that_lacks_the_code_it_needs(gw: Gateway) -> None:
    told = {"name": "w", "steps": [{"kind": "llm", "name": "s", "prompt": "x", "model": "echo"}]}
    begun = await gw.workflows.start(definition=told, needs=["middleware flows:Audit"])
    assert begun["waits_for"] == ["middleware flows:Audit"]
    assert (await gw.workflows.get(id=begun["id"]))["steps"] == []


class Around(Middleware):
    def __init__(self, name: str, said: list[str], *, fails: str = "", closed: bool = False) -> None:
        self.name, self.said, self.fails, self.fails_closed = name, said, fails, closed

    async def on_step(self, step: Any, proceed: Any) -> Any:
        self.said.append(f"{self.name} before {step.step}")
        if self.fails == "before":
            raise RuntimeError(self.name)
        output = await proceed()
        self.said.append(f"{self.name} after {step.step}")
        if self.fails == "after":
            raise RuntimeError(self.name)
        return output

    async def on_call(self, ask: Any, proceed: Any) -> Any:
        self.said.append(f"{self.name} call")
        return await proceed(ask)


async def test_middleware_stands_around_steps_and_calls_in_order_and_its_failures_are_its_own(
    gw: Gateway, bus_url: str
) -> None:
    said: list[str] = []
    middleware = [Around("a", said), Around("b", said, fails="after"), Around("c", said, fails="before")]
    async with Engine(bus_url, middleware=middleware) as engine:
        assert (await engine.run(Workflow("w", [echo("s", "x")]))).output == "x"
    assert said == ["a before s", "b before s", "c before s", "a call", "b call", "c call", "b after s", "a after s"]
    async with Engine(bus_url, middleware=[Around("d", [], fails="before", closed=True)]) as engine:
        with pytest.raises(WorkflowFailed, match="Around failed"):
            await engine.run(Workflow("w", [echo("s", "x", retry=Retry(attempts=1))]))


@asynccontextmanager
async def worker(bus_url: str, *workflows: Workflow) -> AsyncIterator[Host]:
    book = CodeBook()
    for workflow in workflows:
        workflow.register(book)
    host = await Host.start(bus_url, ("workflow",), code=book)
    try:
        yield host
    finally:
        await host.stop()


TWO = Workflow("two", [WaitStep("wait", "go"), TransformStep("loud", shout, {"draft": "wait"})])


async def test_a_run_that_its_process_left_is_gone_on_with_by_one_that_knows_the_code(
    gw: Gateway, bus_url: str
) -> None:
    async with worker(bus_url, TWO):
        run_id = (await gw.workflows.start(definition=_told(TWO)))["id"]
        await _led(gw, run_id)
    assert (await gw.workflows.get(id=run_id))["by"] is None, "the gateway's own process has no `shout`"
    await gw.workflows.signal(id=run_id, name="go", value="on")
    listed = (await gw.workflows.list())["runs"][0]
    assert listed["waits_for"] == ["test_workflows:shout"]
    async with worker(bus_url, TWO), asyncio.timeout(10):
        while (told := await gw.workflows.get(id=run_id))["status"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (told["output"], told["metrics"]["led_by"]) == ("ON", 2)


def _told(workflow: Workflow) -> Any:
    import msgspec

    return msgspec.to_builtins(workflow.definition)


async def _led(gw: Gateway, run_id: str) -> None:
    async with asyncio.timeout(10):
        while (await gw.workflows.get(id=run_id))["by"] is None:  # noqa: ASYNC110 - told to nobody
            await asyncio.sleep(0.01)


def test_a_function_of_a_program_goes_by_the_name_that_others_import_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    program = types.ModuleType("__main__")
    exec("def shorten(draft): return draft[:280]", vars(program))
    monkeypatch.setitem(sys.modules, "__main__", program)
    program.__file__ = "flows/tweet.py"
    assert name_of(program.shorten) == "tweet:shorten"
    program.__spec__ = ModuleSpec("flows.tweet", None)
    assert name_of(program.shorten) == "flows.tweet:shorten"


def leaves() -> None:
    sys.exit(3)


async def test_a_function_that_ends_the_process_ends_its_step_only(engine: Engine) -> None:
    with pytest.raises(WorkflowFailed, match="leaves raised SystemExit: 3"):
        await engine.run(Workflow("w", [TransformStep("s", leaves, retry=Retry(attempts=1))]))


RELEASED = threading.Event()


def blocks() -> str:
    RELEASED.wait(60)
    return "late"


async def test_functions_that_never_return_keep_none_from_being_called(engine: Engine) -> None:
    hung = TransformStep("step", blocks, timeout_s=0.05, retry=Retry(attempts=1), critical=False)
    many = MapStep("many", "list", [hung], at_once=100)
    try:
        result = await engine.run(Workflow("w", [many, TransformStep("after", shout, {"draft": "word"})]), GIVEN)
        assert (result.output, result.metrics["duration_ms"] < 5_000) == ("ON", True)
    finally:
        RELEASED.set()


GIVEN = {"list": list(range(70)), "word": "on"}
