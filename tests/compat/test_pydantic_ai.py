"""Agents of pydantic-ai."""

from collections.abc import Awaitable, Callable

import pytest
from compat_kit import TEXT, UNKNOWN, Asked
from upstream import Upstream

pytest_plugins = ["engine"]
pytestmark = pytest.mark.compat

CLIENT = "ask_pydantic_ai.py"


async def test_an_agent_is_answered_over_both_of_openais_apis(asked: Asked) -> None:
    found = await asked(CLIENT, "plain", "tiny")
    assert (found["text"].strip(), found["responses"].strip()) == (TEXT, TEXT)
    assert found["tokens"] > 0


async def test_a_stream_adds_up_to_the_answer_and_ends_with_its_usage(asked: Asked) -> None:
    found = await asked(CLIENT, "stream", "tiny")
    assert "".join(found["pieces"]).strip() == TEXT
    assert len(found["pieces"]) > 1
    assert found["tokens"] > 0


async def test_an_agent_calls_its_tool_and_goes_on(asked: Asked) -> None:
    found = await asked(CLIENT, "tools", "tiny")
    assert (found["cities"], found["requests"], found["text"].strip()) == (["Paris"], 2, TEXT)


async def test_an_output_type_is_what_comes(asked: Asked) -> None:
    assert await asked(CLIENT, "parse", "tiny") == ["Fact", "Fact"]


async def test_thinking_is_a_part_of_its_own(asked: Asked) -> None:
    assert await asked(CLIENT, "thinks", "tiny") == [["thinking", "text"]] * 2


async def test_errors_are_its_own_classes(asked: Asked) -> None:
    missing = await asked(CLIENT, "error", "none")
    assert "ModelNotFoundError" in missing["raised"]
    assert missing["status"] == 404
    refused = await asked(CLIENT, "error", "tiny", key=UNKNOWN)
    assert "ModelAuthenticationError" in refused["raised"]


async def test_an_exceeded_budget_is_a_quota_and_asked_for_once(
    asked: Asked, refusals: Callable[[], Awaitable[int]], poor: str
) -> None:
    before = await refusals()
    assert "ModelQuotaExceededError" in (await asked(CLIENT, "error", "tiny", key=poor))["raised"]
    assert await refusals() == before + 1


async def test_it_asks_again_by_itself(asked: Asked, flaky: Upstream) -> None:
    assert (await asked(CLIENT, "stream", "flaky"))["pieces"] == ["again"]
    assert len(flaky.requests) == 2


async def test_a_stream_that_breaks_off_raises(asked: Asked) -> None:
    found = await asked(CLIENT, "broken", "cut")
    assert "ModelAPIError" in found["raised"]
    assert found["heard"] == "w1 w2 w3"
