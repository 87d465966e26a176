"""A real inference engine behind the bus: its words reach the caller, and a cut reaches the engine."""

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from audit import check_books, history, kinds
from trunkline import errors
from trunkline.client import Gateway
from trunkline_events.thread import Aborted, UsageRecorded

pytest_plugins = ["engine", "gateway"]

TEXT = "Hello from a real llama.cpp engine; café ☃ done."
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture
async def real(gw: Gateway, engine: str) -> Gateway:
    """The gateway, with the engine registered as any OpenAI-compatible server is."""
    await gw.providers.register(id="engine", kind="openai-compatible", base_url=f"{engine}/v1", local=True)
    await gw.models.register(
        id="tiny", provider="engine", features=["tools"], price={"input": "1.00", "output": "2.00"}
    )
    return gw


def busy(engine: str) -> bool:
    with urllib.request.urlopen(f"{engine}/slots") as slots:
        return any(slot["is_processing"] for slot in json.load(slots))


async def idle(engine: str, within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        while await asyncio.to_thread(busy, engine):  # noqa: ASYNC110 - it tells nobody when it stops
            await asyncio.sleep(0.02)


async def test_a_plain_answer_is_metered_with_the_engines_own_numbers(real: Gateway) -> None:
    answer = await real.chat.create("tiny", "hi", thread="t")
    assert answer.text.strip() == TEXT
    recorded = await history(real, "t")
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    settled = recorded[-1].body
    assert isinstance(settled, UsageRecorded)
    assert settled.estimated is False
    assert settled.usage.input_tokens == answer.usage["prompt_tokens"] > 0
    assert settled.usage.output_tokens == answer.usage["completion_tokens"] > 0
    assert settled.cost_nanos == settled.usage.input_tokens * 1000 + settled.usage.output_tokens * 2000


async def test_a_stream_joins_to_the_same_text(real: Gateway) -> None:
    text = ""
    async with real.chat.stream("tiny", "hi") as answer:
        async for chunk in answer:
            text += chunk.text
    assert text.strip() == TEXT
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    assert answer.receipt is not None
    assert answer.receipt.finish == "stop"


async def test_thinking_comes_apart_from_the_answer(real: Gateway) -> None:
    whole = await real.chat.create("tiny", "think")
    assert "Let me think about it." in whole.reasoning
    assert "forty-two" in whole.text
    assert "Let me" not in whole.text
    thought, text = "", ""
    async with real.chat.stream("tiny", "think") as answer:
        async for chunk in answer:
            thought += chunk.reasoning
            text += chunk.text
    assert (thought.strip(), text.strip()) == (whole.reasoning.strip(), whole.text.strip())


async def test_a_tool_is_called(real: Gateway) -> None:
    answer = await real.chat.create("tiny", "weather?", tools=TOOLS)
    assert answer.receipt.finish == "tool_calls"
    called = answer.tool_calls[0]["function"]
    assert (called["name"], json.loads(called["arguments"])) == ("get_weather", {"city": "Paris"})


@pytest.mark.parametrize("how", ["abort", "leave", "vanish"])
async def test_a_cut_reaches_the_engine_and_what_was_generated_is_settled(real: Gateway, engine: str, how: str) -> None:
    async with real.chat.stream("tiny", "long", thread="t", request_id="r", max_tokens=3000) as answer:
        await anext(answer)
        assert await asyncio.to_thread(busy, engine)
        if how == "abort":
            await real.chat.abort("r")
            with pytest.raises(errors.Aborted):
                async for _ in answer:
                    pass
        elif how == "vanish":
            answer._done = True  # so that nobody says that we leave
    await idle(engine)
    recorded = await history(real, "t")
    async with asyncio.timeout(3):
        while len(recorded) < 2:
            await asyncio.sleep(0.02)
            recorded = await history(real, "t")
    settled = recorded[-1].body
    assert isinstance(settled, Aborted)
    assert settled.finish == ("abandoned" if how == "vanish" else "aborted")
    assert settled.cost_nanos > 0
    check_books(recorded)


async def test_a_prompt_too_long_for_the_engine_is_told_as_that(real: Gateway) -> None:
    with pytest.raises(errors.ContextLengthExceeded):
        await real.chat.create("tiny", "word " * 20_000)
