"""OpenAI's own client for Node."""

from collections.abc import Awaitable, Callable

import pytest
from compat_kit import TEXT, UNKNOWN, Asked, is_weather
from upstream import Upstream

pytest_plugins = ["engine"]
pytestmark = [pytest.mark.compat, pytest.mark.node]

CLIENT = "ask_openai.mjs"


async def test_it_is_answered_and_lists_models(asked: Asked) -> None:
    found = await asked(CLIENT, "plain", "tiny")
    assert (found["text"].strip(), found["finish"], found["model"]) == (TEXT, "stop", "tiny")
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + found["usage"]["completion_tokens"]
    assert found["request_id"]
    assert {"tiny", "echo"} <= set(found["models"])


async def test_a_stream_adds_up_to_the_answer_and_ends_with_its_usage(asked: Asked) -> None:
    found = await asked(CLIENT, "stream", "tiny")
    assert found["text"].strip() == TEXT
    assert found["final"] == found["text"]
    assert found["usage"]["completion_tokens"] == found["final_usage"]["completion_tokens"] > 0


async def test_it_is_called_tools_and_answers_to_their_results(asked: Asked) -> None:
    found = await asked(CLIENT, "calls", "tiny")
    assert is_weather(*found["called"])
    assert is_weather(*found["streamed"])
    assert (found["finish"], found["text"].strip()) == ("tool_calls", TEXT)


async def test_its_own_loop_runs_a_tool(asked: Asked) -> None:
    found = await asked(CLIENT, "runs", "tiny")
    assert (found["text"].strip(), found["cities"]) == (TEXT, ["Paris"])


async def test_it_parses_what_a_schema_asked_for(asked: Asked) -> None:
    assert await asked(CLIENT, "parse", "tiny") == [True, True]


async def test_errors_are_its_own_classes(asked: Asked) -> None:
    missing = await asked(CLIENT, "error", "none")
    assert (missing["raised"], missing["code"]) == ("NotFoundError", "model_not_found")
    assert missing["request_id"]
    assert (await asked(CLIENT, "error", "tiny", "bad"))["raised"] == "BadRequestError"
    refused = await asked(CLIENT, "error", "tiny", key=UNKNOWN)
    assert (refused["raised"], refused["code"]) == ("AuthenticationError", "unauthenticated")


async def test_an_exceeded_budget_is_asked_for_once(
    asked: Asked, refusals: Callable[[], Awaitable[int]], poor: str
) -> None:
    before = await refusals()
    found = await asked(CLIENT, "error", "tiny", key=poor)
    assert (found["raised"], found["type"]) == ("RateLimitError", "insufficient_quota")
    assert await refusals() == before + 1


async def test_it_asks_again_by_itself(asked: Asked, flaky: Upstream) -> None:
    assert await asked(CLIENT, "retried", "flaky") == "again"
    assert len(flaky.requests) == 2


async def test_a_limit_by_the_minute_is_waited_for(asked: Asked, few: str) -> None:
    found = await asked(CLIENT, "hurried", "echo", key=few)
    assert (found["status"], found["text"]) == (200, "hi")
    assert 19 <= found["asked"] < 40


async def test_vectors_come_as_numbers(asked: Asked) -> None:
    assert await asked(CLIENT, "embeddings", "vectors") == {"lengths": [5, 5], "tokens": 2}


async def test_a_stream_that_breaks_off_raises(asked: Asked) -> None:
    found = await asked(CLIENT, "broken", "cut")
    assert (found["raised"], found["heard"]) == ("APIError", "w1 w2 w3")


async def test_the_responses_api_answers_streams_and_parses(asked: Asked) -> None:
    found = await asked(CLIENT, "responses", "tiny")
    assert (found["text"].strip(), found["streamed"].strip()) == (TEXT, TEXT)
    assert (found["last"], found["parsed"]) == ("response.completed", True)
    assert found["usage"]["output_tokens"] > 0
