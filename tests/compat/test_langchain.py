"""LangChain's models for OpenAI's APIs."""

from collections.abc import Awaitable, Callable

import pytest
from compat_kit import TEXT, UNKNOWN, Asked, is_weather
from upstream import Upstream

pytest_plugins = ["engine"]
pytestmark = pytest.mark.compat

CLIENT = "ask_langchain.py"


async def test_it_is_answered_over_both_of_openais_apis(asked: Asked) -> None:
    found = await asked(CLIENT, "plain", "tiny")
    assert (found["text"].strip(), found["responses"].strip()) == (TEXT, TEXT)
    assert found["usage"]["total_tokens"] == found["usage"]["input_tokens"] + found["usage"]["output_tokens"]


async def test_a_stream_adds_up_to_the_answer_and_ends_with_its_usage(asked: Asked) -> None:
    found = await asked(CLIENT, "stream", "tiny")
    assert found["text"].strip() == TEXT
    assert found["count"] > 3
    assert found["usage"]["output_tokens"] > 0


async def test_it_is_called_tools_and_answers_to_their_results(asked: Asked) -> None:
    found = await asked(CLIENT, "tools", "tiny")
    assert [is_weather(*called) for called in found["called"]] == [True, True]
    assert (found["result"], found["text"].strip()) == ("sunny in Paris", TEXT)


async def test_structured_output_is_what_comes(asked: Asked) -> None:
    assert await asked(CLIENT, "parse", "tiny") == ["Fact", "Fact"]


async def test_errors_are_its_own_classes(asked: Asked) -> None:
    assert "NotFoundError" in (await asked(CLIENT, "error", "none"))["raised"]
    assert "AuthenticationError" in (await asked(CLIENT, "error", "tiny", key=UNKNOWN))["raised"]


async def test_an_exceeded_budget_is_asked_for_once(
    asked: Asked, refusals: Callable[[], Awaitable[int]], poor: str
) -> None:
    before = await refusals()
    found = await asked(CLIENT, "error", "tiny", key=poor)
    assert "RateLimitError" in found["raised"]
    assert found["type"] == "insufficient_quota"
    assert await refusals() == before + 1


async def test_it_asks_again_by_itself(asked: Asked, flaky: Upstream) -> None:
    assert (await asked(CLIENT, "stream", "flaky"))["text"] == "again"
    assert len(flaky.requests) == 2


async def test_a_stream_that_breaks_off_raises(asked: Asked) -> None:
    found = await asked(CLIENT, "broken", "cut")
    assert "APIError" in found["raised"]
    assert found["heard"] == "w1 w2 w3"
