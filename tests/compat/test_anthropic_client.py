"""Anthropic's own client for Python, on Messages, with a model that isn't theirs."""

from collections.abc import Awaitable, Callable

import pytest
from compat_kit import TEXT, UNKNOWN, Asked, is_weather
from upstream import Upstream

pytest_plugins = ["engine"]
pytestmark = pytest.mark.compat

CLIENT = "ask_anthropic.py"
KINDS = ["message_start", "content_block_start", "content_block_delta", "content_block_stop"]


async def test_it_is_answered(asked: Asked) -> None:
    found = await asked(CLIENT, "plain", "tiny")
    assert (found["text"].strip(), found["stop"]) == (TEXT, "end_turn")
    assert found["usage"]["input_tokens"] > 0
    assert found["usage"]["output_tokens"] > 0
    assert found["request_id"]


async def test_a_stream_adds_up_to_the_answer_and_ends_with_its_usage(asked: Asked) -> None:
    found = await asked(CLIENT, "stream", "tiny")
    assert found["kinds"] == [*KINDS, "message_delta", "message_stop"]
    assert found["text"].strip() == TEXT
    assert found["pieces"] == found["final"] == found["text"]
    assert found["usage"]["output_tokens"] == found["final_usage"]["output_tokens"] > 0


async def test_it_is_called_tools_and_answers_to_their_results(asked: Asked) -> None:
    found = await asked(CLIENT, "tools", "tiny")
    assert is_weather(*found["called"])
    assert is_weather(*found["streamed"])
    assert (found["stop"], found["text"].strip()) == ("tool_use", TEXT)


async def test_its_own_loop_runs_a_tool(asked: Asked) -> None:
    found = await asked(CLIENT, "runs", "tiny")
    assert (found["cities"], found["text"].strip()) == (["Paris"], TEXT)


async def test_thinking_is_a_block_of_its_own(asked: Asked) -> None:
    assert await asked(CLIENT, "thinks", "tiny") == ["thinking", "text"]


async def test_it_parses_what_a_schema_asked_for(asked: Asked) -> None:
    assert await asked(CLIENT, "parse", "tiny") == "Fact"


async def test_errors_are_its_own_classes(asked: Asked) -> None:
    missing = await asked(CLIENT, "error", "none")
    assert (missing["raised"], missing["kind"]) == ("NotFoundError", "not_found_error")
    assert missing["request_id"]
    bad = await asked(CLIENT, "error", "tiny", "bad")
    assert (bad["raised"], bad["kind"]) == ("BadRequestError", "invalid_request_error")
    refused = await asked(CLIENT, "error", "tiny", key=UNKNOWN)
    assert (refused["raised"], refused["kind"]) == ("AuthenticationError", "authentication_error")


async def test_an_exceeded_budget_is_asked_for_once(
    asked: Asked, refusals: Callable[[], Awaitable[int]], poor: str
) -> None:
    before = await refusals()
    found = await asked(CLIENT, "error", "tiny", key=poor)
    assert (found["raised"], found["kind"]) == ("RateLimitError", "rate_limit_error")
    assert await refusals() == before + 1


async def test_it_asks_again_by_itself(asked: Asked, flaky: Upstream) -> None:
    assert await asked(CLIENT, "retried", "flaky") == {"text": "again", "retries": 1}
    assert len(flaky.requests) == 2


async def test_a_limit_by_the_minute_is_waited_for(asked: Asked, few: str) -> None:
    found = await asked(CLIENT, "hurried", "echo", key=few)
    assert (found["retries"], found["text"]) == (1, "hi")
    assert 19 <= found["asked"] < 40


async def test_a_stream_that_breaks_off_raises(asked: Asked) -> None:
    found = await asked(CLIENT, "broken", "cut")
    assert (found["raised"], found["kind"], found["heard"]) == ("APIStatusError", "api_error", "w1 w2 w3")
