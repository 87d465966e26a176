"""Vercel's `ai`, with its provider for OpenAI (Chat Completions and Responses) and its one for compatible servers."""

from collections.abc import Awaitable, Callable

import pytest
from compat_kit import TEXT, UNKNOWN, Asked
from upstream import Upstream

pytest_plugins = ["engine"]
pytestmark = [pytest.mark.compat, pytest.mark.node]

CLIENT = "ask_vercel.mjs"
each = pytest.mark.parametrize("kind", ["compatible", "chat", "responses"])


@each
async def test_it_is_answered(asked: Asked, kind: str) -> None:
    found = await asked(CLIENT, "plain", kind, "tiny")
    assert (found["text"].strip(), found["finishReason"]) == (TEXT, "stop")
    assert found["usage"]["totalTokens"] == found["usage"]["inputTokens"] + found["usage"]["outputTokens"]


@each
async def test_a_stream_adds_up_to_the_answer_and_ends_with_its_usage(asked: Asked, kind: str) -> None:
    found = await asked(CLIENT, "stream", kind, "tiny")
    assert found["text"].strip() == TEXT
    assert "".join(found["pieces"]) == found["text"]
    assert len(found["pieces"]) > 1
    assert found["usage"]["outputTokens"] > 0


@each
async def test_its_loop_runs_a_tool_and_goes_on(asked: Asked, kind: str) -> None:
    found = await asked(CLIENT, "tools", kind, "tiny")
    assert (found["text"].strip(), found["streamed"].strip()) == (TEXT, TEXT)
    assert (found["cities"], found["steps"]) == (["Paris", "Paris"], 2)


@each
async def test_an_output_object_is_what_comes(asked: Asked, kind: str) -> None:
    assert await asked(CLIENT, "parse", kind, "tiny") is True


@pytest.mark.parametrize("kind", ["compatible", "responses"])
async def test_thinking_comes_apart_from_the_answer(asked: Asked, kind: str) -> None:
    """OpenAI's own Chat Completions have no thinking, and so neither has its provider's `chat`."""
    found = await asked(CLIENT, "thinks", kind, "tiny")
    assert (found["text"].strip(), found["reasoningText"].strip()) == (
        "The answer is forty-two.",
        "Let me think about it.",
    )


@each
async def test_errors_have_the_status_and_the_message(asked: Asked, kind: str) -> None:
    missing = await asked(CLIENT, "error", kind, "none")
    assert (missing["name"], missing["status"]) == ("AI_APICallError", 404)
    assert "none" in missing["message"]
    refused = await asked(CLIENT, "error", kind, "tiny", key=UNKNOWN)
    assert (refused["name"], refused["status"]) == ("AI_APICallError", 401)


async def test_an_exceeded_budget_is_told_after_three_requests(
    asked: Asked, refusals: Callable[[], Awaitable[int]], poor: str
) -> None:
    """`ai` doesn't know `x-should-retry` and asks again after any 429. None of it costs anything: all are refused."""
    before = await refusals()
    found = await asked(CLIENT, "error", "compatible", "tiny", key=poor)
    assert found["name"] == "AI_RetryError"
    assert "of the budget" in found["message"]
    assert await refusals() == before + 3


@each
async def test_it_asks_again_by_itself(asked: Asked, flaky: Upstream, kind: str) -> None:
    assert (await asked(CLIENT, "plain", kind, "flaky"))["text"] == "again"
    assert len(flaky.requests) == 2


@each
async def test_a_stream_that_breaks_off_tells_its_error(asked: Asked, kind: str) -> None:
    found = await asked(CLIENT, "broken", kind, "cut")
    assert (found["heard"], found["finishReason"]) == ("w1 w2 w3", "error")
    assert any("broke off" in error for error in found["errors"])
