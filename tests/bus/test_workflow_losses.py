"""Runs of workflows when what is kept of them is lost, or an acknowledgement is."""

import asyncio
from typing import Any

import pytest
from trunkline import errors
from trunkline.client import Gateway
from trunkline.workflows import Engine, LLMStep, WaitStep, Workflow
from trunkline_events.envelope import NewEvent
from trunkline_events.log import Appended, LogUnavailable
from trunkline_events.subjects import WORKFLOWS_BUCKET
from trunkline_events.workflow import StepCompleted

pytest_plugins = ["gateway", "workflow_kit"]


def echo(name: str, prompt: str) -> Any:
    return LLMStep(name, prompt, model="echo")


async def test_a_bucket_of_runs_that_was_deleted_is_made_anew_and_what_is_known_goes_on(
    engine: Engine, gw: Gateway
) -> None:
    waits = Workflow("waits", [echo("a", "{topic}"), WaitStep("told", "go"), echo("b", "{a} {told}")])
    run = await engine.start(waits, {"topic": "foxes"})
    async for event in gw.events("workflow", id=run, since=0):
        if isinstance(event.body, StepCompleted):
            break
    await gw._connection.nats.jetstream().delete_stream(f"KV_{WORKFLOWS_BUCKET}")
    async with asyncio.timeout(20):
        while True:
            try:
                await gw.workflows.signal(id=run, name="go", value="run")
                break
            except errors.Unavailable:
                continue
        assert (await engine.result(run)).output == "foxes run"
        assert (await engine.run(Workflow("more", [echo("a", "{topic}")]), {"topic": "dogs"})).output == "dogs"


async def test_a_run_whose_beginning_nobody_heard_is_stored_is_led_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine._host is not None
    log_ = engine._host.runtime.log
    lost: list[str] = []
    append = log_.append

    async def losing(event: NewEvent, expected: int | None) -> Appended:
        appended = await append(event, expected)
        if event.category == "workflow" and not lost:
            lost.append(event.id)
            raise LogUnavailable("its acknowledgement was lost")
        return appended

    monkeypatch.setattr(log_, "append", losing)
    flow = Workflow("flow", [echo("a", "{topic}")])
    with pytest.raises(errors.Unavailable):
        await engine.start(flow, {"topic": "foxes"}, id="r")
    async with asyncio.timeout(10):
        assert (await engine.run(flow, {"topic": "foxes"}, id="r")).output == "foxes"
