"""The middleware that is shipped: it logs, counts, keeps things back and caches, over a real gateway."""

from typing import Any

import pytest
import structlog
from trunkline import errors
from trunkline.client import Gateway
from trunkline.workflow_middleware import CachingMiddleware, LoggingMiddleware, RedactionMiddleware, TokenTracker
from trunkline.workflows import Engine, LLMStep, Retry, Workflow, WorkflowFailed

pytest_plugins = ["gateway"]

ASK = Workflow("ask", [LLMStep("say", "{text}", model="echo")])


async def test_what_must_not_leave_is_taken_out_of_what_is_asked(gw: Gateway, bus_url: str) -> None:
    async with Engine(bus_url, middleware=[RedactionMiddleware()]) as engine:
        said = await engine.run(ASK, {"text": "write to ada@example.org, card 4111 1111 1111 1111"})
    assert said.output == "write to [EMAIL], card [CARD]"


async def test_redaction_that_fails_lets_nothing_through(
    gw: Gateway, bus_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr("trunkline.workflow_middleware.redact_json", broken)
    once = Workflow("once", [LLMStep("say", "{text}", model="echo", retry=Retry(attempts=1))])
    async with Engine(bus_url, middleware=[RedactionMiddleware()]) as engine:
        with pytest.raises(WorkflowFailed, match="RedactionMiddleware failed"):
            await engine.run(once, {"text": "x"}, thread="t")
    with pytest.raises(errors.NotFound, match="nothing has happened in thread"):
        await gw.threads.get(thread_id="t")


async def test_answers_are_counted_cached_and_logged_without_a_word_of_them(gw: Gateway, bus_url: str) -> None:
    tracker = TokenTracker()
    middleware = [LoggingMiddleware(), tracker, CachingMiddleware(seconds=60)]
    with structlog.testing.capture_logs() as logs:
        async with Engine(bus_url, middleware=middleware) as engine:
            first, again = [await engine.run(ASK, {"text": "XYZZY plugh"}) for _ in range(2)]
    assert first.output == again.output == "XYZZY plugh"
    assert (float(first.metrics["cost_usd"]) > 0, again.metrics["cost_usd"]) == (True, "0")
    assert (tracker.total.chats, list(tracker.by_step), list(tracker.by_model)) == (2, ["say"], ["echo"])
    assert tracker.total.usage.input_tokens == 4
    told = [entry for entry in logs if entry["event"].startswith("workflow.")]
    assert {entry["event"] for entry in told} >= {"workflow.step_done", "workflow.chat_done"}
    assert "XYZZY" not in str(told)
