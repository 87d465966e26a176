"""What one asks of runs of workflows, and tells them: begin, get, list, signal, cancel, and who may."""

import asyncio
from typing import Any

import msgspec
import pytest
import trunkline
from audit import history, kinds
from trunkline import errors
from trunkline.client import Gateway
from trunkline.gateway.bus_commands import COMMANDS
from trunkline.workflows import Engine, LLMStep, WaitStep, Workflow, WorkflowFailed
from trunkline_events.thread import RouteDecided

pytest_plugins = ["gateway", "workflow_kit"]


def echo(name: str, prompt: str) -> Any:
    return LLMStep(name, prompt, model="echo")


async def test_the_same_id_begins_a_run_once_and_another_run_under_it_is_refused(engine: Engine) -> None:
    workflow = Workflow("one", [echo("draft", "{topic}")])
    first, again = [await engine.run(workflow, {"topic": "a"}, id="r") for _ in range(2)]
    assert (first.output, again.output, first.metrics) == ("a", "a", again.metrics)
    with pytest.raises(errors.Conflict):
        await engine.run(workflow, {"topic": "b"}, id="r")


async def test_who_knows_the_id_of_a_run_changes_nothing_of_its_budget(engine: Engine, gw: Gateway) -> None:
    await engine.run(Workflow("w", [echo("draft", "x")], budget_usd="1"), id="r")
    with pytest.raises(errors.Conflict):
        await engine.run(Workflow("w", [echo("other", "x")], budget_usd="5"), id="r")
    assert (await gw.threads.get(thread_id="wf-r"))["limit_usd"] == "1"


async def test_a_run_changes_no_budget_of_a_thread_that_is_there(engine: Engine, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="wf-x", budget={"limit_usd": "100"})
    with pytest.raises(errors.Conflict, match="choose another id"):
        await engine.run(Workflow("w", [echo("draft", "x")], budget_usd="0"), id="x")
    assert (await gw.threads.get(thread_id="wf-x"))["limit_usd"] == "100"


async def test_a_run_that_got_no_further_than_its_budget_begins_when_it_is_asked_for_again(
    engine: Engine, gw: Gateway
) -> None:
    await gw.threads.configure(thread_id="wf-x", budget={"limit_usd": "1"})
    assert (await engine.run(Workflow("w", [echo("draft", "x")], budget_usd="1"), id="x")).output == "x"


async def test_a_run_waits_for_a_signal(engine: Engine, gw: Gateway) -> None:
    workflow = Workflow("asks", [WaitStep("approval", "approved"), echo("done", "by {approval.who}")])
    run_id = await engine.start(workflow)
    assert (await gw.workflows.get(id=run_id))["status"] == "running"
    await gw.workflows.signal(id=run_id, name="approved", value={"who": "Ada"})
    assert (await engine.result(run_id)).output == "by Ada"
    with pytest.raises(errors.Conflict):
        await gw.workflows.signal(id=run_id, name="approved", value={"who": "Bob"})


async def test_a_run_that_is_cancelled_stops_and_its_chat_is_cut_and_billed_for_what_it_said(
    engine: Engine, gw: Gateway
) -> None:
    run_id = await engine.start(Workflow("long", [LLMStep("step", "go", model="slow")]), thread="t")
    async with asyncio.timeout(10):
        while "route-decided" not in kinds(await history(gw, "t")):  # noqa: ASYNC110 - the chat is under way then
            await asyncio.sleep(0.01)
    await gw.workflows.cancel(id=run_id, reason="enough")
    with pytest.raises(WorkflowFailed, match="cancelled"):
        await engine.result(run_id)
    async with asyncio.timeout(10):
        while len(books := await history(gw, "t")) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert kinds(books) == ["route-decided", "aborted"]
    assert (await gw.workflows.cancel(id=run_id))["changed"] is False


async def test_runs_are_listed_with_what_they_came_to(engine: Engine, gw: Gateway) -> None:
    for name in ("a", "b"):
        await engine.run(Workflow(name, [echo("draft", "x")]), id=f"run-{name}")
    waiting = await engine.start(Workflow("c", [WaitStep("w", "never")]), id="run-c")
    listed = (await gw.workflows.list())["runs"]
    assert [(one["id"], one["workflow"], one["status"]) for one in listed] == [
        ("run-a", "a", "completed"),
        ("run-b", "b", "completed"),
        (waiting, "c", "running"),
    ]
    page = await gw.workflows.list(limit=1, after="run-a")
    assert ([one["id"] for one in page["runs"]], page["after"]) == (["run-b"], "run-b")
    assert [one["id"] for one in (await gw.workflows.list(status="running"))["runs"]] == ["run-c"]


async def test_a_run_spends_the_money_of_the_key_that_began_it(gw: Gateway, bus_url: str) -> None:
    key = (await gw.keys.issue(id="team-a"))["key"]
    async with Engine(bus_url, key=key) as engine:
        result = await engine.run(Workflow("w", [echo("draft", "hello")]), thread="t")
        assert result.output == "hello"
    decided = (await history(gw, "t"))[0].body
    assert isinstance(decided, RouteDecided)
    assert decided.key == "team-a"
    other = (await gw.keys.issue(id="team-b"))["key"]
    async with trunkline.connect(bus_url, other) as stranger:
        with pytest.raises(errors.NotFound):
            await stranger.workflows.get(id=result.id)
        with pytest.raises(errors.NotFound):
            await stranger.workflows.cancel(id=result.id)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "workflow"),
        ({"workflow": "nobody"}, "workflow"),
        ({"definition": {"name": "x", "steps": [{"kind": "llm"}]}}, "steps[0]"),
        ({"definition": {"name": "x", "steps": []}}, "steps"),
        (
            {
                "definition": {
                    "name": "x",
                    "steps": [{"kind": "llm", "name": "s", "prompt": "{y}"}],
                    "inputs": {"properties": {}},
                }
            },
            "steps[0].prompt",
        ),
        ({"definition": {"name": "x", "steps": [{"kind": "wait", "name": "s", "signal": "g"}]}, "id": "a\n"}, "id"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_place(gw: Gateway, arguments: Any, param: str) -> None:
    with pytest.raises(errors.TrunklineError) as refused:
        await gw.workflows.start(**arguments)
    assert param in str(refused.value.param)


@pytest.mark.parametrize("verb", ["get", "cancel", "signal"])
async def test_a_run_that_is_not_there_is_not_found(gw: Gateway, verb: str) -> None:
    more = {"name": "x", "value": 1} if verb == "signal" else {}
    with pytest.raises(errors.NotFound):
        await getattr(gw.workflows, verb)(id="nobody", **more)


@pytest.mark.parametrize("levels", [20, 400, 600, 3_000])
async def test_steps_that_lie_too_deep_are_refused_however_deep(engine: Engine, gw: Gateway, levels: int) -> None:
    inside, outside = b'{"kind":"llm","name":"a","prompt":"x"}', b'{"kind":"parallel","name":"p","steps":['
    steps = outside * levels + inside + b"]}" * levels
    body = b'{"definition":{"name":"w","steps":[' + steps + b"]}}"
    reply = await gw._connection.nats.request("trunkline.workflows.start", body, timeout=10)
    assert b'"code":"invalid_request"' in reply.data
    assert b"deep" in reply.data or b"JSON" in reply.data


async def test_a_schema_that_refers_to_another_document_is_refused_and_nothing_is_fetched(gw: Gateway) -> None:
    definition = {"name": "w", "steps": [{"kind": "llm", "name": "a", "prompt": "x"}]}
    for inputs in ({"$ref": "http://127.0.0.1:9/x"}, {"type": "thing"}):
        with pytest.raises(errors.InvalidRequest, match=r"inputs|schema"):
            await gw.workflows.start(definition={**definition, "inputs": inputs}, input={})


async def test_what_is_answered_is_as_the_document_of_the_bus_has_it(engine: Engine, gw: Gateway) -> None:
    workflow = Workflow("w", [echo("draft", "x"), WaitStep("approval", "approved")])
    definition = msgspec.to_builtins(workflow.definition)
    held = {
        "start": await gw.workflows.start(definition=definition, id="r"),
        "signal": await gw.workflows.signal(id="r", name="approved", value=1),
        "get": await gw.workflows.get(id="r", wait_s=10),
        "list": await gw.workflows.list(),
    }
    held["cancel"] = await gw.workflows.cancel(id=(await gw.workflows.start(definition=definition))["id"])
    for verb, said in held.items():
        kind = COMMANDS[f"trunkline.workflows.{verb}"].gives
        told = msgspec.to_builtins(msgspec.convert(said, kind))
        assert {name: told.get(name) for name in said} == said, verb
        assert set(told) - set(said) <= {"stale"}, verb
