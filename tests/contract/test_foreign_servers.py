"""Every kind of provider against servers that none of us wrote: the mock `aimock` in Node, and the engine llama.cpp.

What aimock 1.43 gets wrong is left out: it counts no tokens but OpenAI's, knows no finish reason but `stop` as Ollama,
answers embeddings in a shape that Ollama and Gemini don't have, and calls Ollama's thinking by another name.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from scenario_kit import CASES, Case, Heard, ask, call, streamed, whole
from trunkline_actors.adapters import Adapter, Call, Chunk
from trunkline_events.failure import Failure

pytest_plugins = ["aimock", "engine"]

TEXT = "Hello from a mock; café ☃ 🌍 done."
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Ask the sky.", "parameters": WEATHER}}]
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
mocked = pytest.mark.parametrize("case", CASES, ids=str)


def user(text: str, **fields: Any) -> Call:
    return call(messages=[{"role": "user", "content": text}], **fields)


@asynccontextmanager
async def calling(case: Case, origin: str, **settings: Any) -> AsyncIterator[Adapter]:
    adapter = case.adapter(origin, **settings)
    try:
        yield adapter
    finally:
        await adapter.close()


async def mock_says(case: Case, aimock: str, request: Call, *, stream: bool) -> Heard:
    async with calling(case, aimock) as adapter:
        return await ask(adapter, request, stream=stream)


@pytest.mark.node
@both
@mocked
async def test_a_mock_of_others_is_understood(case: Case, aimock: str, stream: bool) -> None:
    async with calling(case, aimock) as adapter:
        plain = await ask(adapter, user("plain"), stream=stream)
        assert (plain.text, plain.finish) == (TEXT, "stop")
        long = await ask(adapter, user("long"), stream=stream)
        assert (long.text, long.finish) == ("Hello fr", "stop" if case.wire.kind == "ollama" else "length")
        told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "brief"}]
        assert (await ask(adapter, call(messages=told), stream=stream)).text == "Yes."


@pytest.mark.node
@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason")  # as Google's SDK says of aimock
@both
@mocked
async def test_tools_go_there_and_back(case: Case, aimock: str, stream: bool) -> None:
    async with calling(case, aimock) as adapter:
        heard = await ask(adapter, user("tools", tools=TOOLS), stream=stream)
        assert heard.finish == "tool_calls"
        assert [(c.name, json.loads(c.arguments[0])["city"]) for c in heard.calls] == [
            ("weather", "Oslo"),
            ("weather", "Rome"),
        ]
        assert len({c.id for c in heard.calls}) == 2
        if not case.wire.call_ids:
            return
        made = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments[0]}}
            for c in heard.calls
        ]
        results = [
            {"role": "tool", "tool_call_id": c.id, "content": said}
            for c, said in zip(heard.calls, ("rain", "sun"), strict=True)
        ]
        history = [
            {"role": "user", "content": "tools"},
            {"role": "assistant", "content": None, "tool_calls": made},
            *results,
        ]
        assert [c.id for c in heard.calls] == ["call_a", "call_b"]
        assert (await ask(adapter, call(messages=history, tools=TOOLS), stream=stream)).text == "Rain and sun."


@pytest.mark.node
@both
@pytest.mark.parametrize("case", [case for case in CASES if case.wire.kind != "ollama"], ids=str)
async def test_the_thinking_of_a_mock_is_kept_apart(case: Case, aimock: str, stream: bool) -> None:
    heard = await mock_says(case, aimock, user("think"), stream=stream)
    assert (heard.thinking, heard.text) == ("Let me see.", "It is 4.")


@pytest.mark.node
@both
@mocked
async def test_the_faults_of_a_mock_are_typed(case: Case, aimock: str, stream: bool) -> None:
    async with calling(case, aimock, timeout_s=5) as adapter:
        busy = (await ask(adapter, user("busy"), stream=stream)).end
        assert isinstance(busy, Failure)
        assert (busy.kind, busy.retry_after) == ("rate_limited", 7.0)
        kinds = {"broken": "unavailable", "refused": "auth", "malformed": "internal", "gone": "connection"}
        kinds |= {"nobody knows this": "unavailable"}  # strict: 503
        if stream:
            kinds |= {"cut": "connection"}
        heard = {said: (await ask(adapter, user(said), stream=stream)).failure.value for said in kinds}
        assert heard == kinds


@pytest.mark.node
@mocked
async def test_a_slow_mock_meets_the_deadline(case: Case, aimock: str) -> None:
    async with calling(case, aimock) as adapter:
        await streamed(adapter, user("plain"))  # the first call may take long: an SDK is imported for it
        assert (await streamed(adapter, user("slow", timeout=0.3))).failure == "timeout"


@pytest.mark.node
@pytest.mark.parametrize("case", [case for case in CASES if case.wire.kind.startswith("openai")], ids=str)
async def test_a_mock_embeds(case: Case, aimock: str) -> None:
    async with calling(case, aimock) as adapter:
        got = await adapter.embed(call(input="vector"))
    assert [item["embedding"] for item in json.loads(got.body)["data"]] == [[0.5, -0.25, 1.0]]


# -- llama.cpp, which speaks OpenAI's format and Anthropic's

engines = pytest.mark.parametrize(
    "case", [c for c in CASES if c.wire.kind in {"openai-compatible", "anthropic"}], ids=str
)


@both
@engines
async def test_a_real_engine_is_understood(case: Case, engine: str, stream: bool) -> None:
    async with calling(case, engine) as adapter:
        heard = await ask(adapter, user("hi"), stream=stream)
        assert (heard.text, heard.finish) == ("Hello from a real llama.cpp engine; café ☃ done.", "stop")
        assert heard.usage is not None
        assert heard.usage.input_tokens > 0
        assert heard.usage.output_tokens > 0
        short = await ask(adapter, user("long", limit=5), stream=stream)
        assert short.usage is not None
        assert (short.finish, short.usage.output_tokens) == ("length", 5)


@both
@engines
async def test_a_real_engine_calls_a_tool_and_thinks(case: Case, engine: str, stream: bool) -> None:
    named = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
    async with calling(case, engine) as adapter:
        heard = await ask(adapter, user("hi", tools=named), stream=stream)
        assert (heard.finish, [c.name for c in heard.calls]) == ("tool_calls", ["get_weather"])
        assert "city" in json.loads(heard.calls[0].arguments[0])
        assert (await ask(adapter, user("think"), stream=stream)).thinking.strip() == "Let me think about it."


@engines
async def test_leaving_a_real_engine_leaves_it_free(case: Case, engine: str) -> None:
    async with calling(case, engine) as adapter:
        for _ in range(4):  # it has two slots
            stream = adapter.stream(user("long"))
            assert isinstance(await anext(stream), Chunk)
            await stream.aclose()
        async with asyncio.timeout(5):
            assert (await whole(adapter, user("hi"))).finish == "stop"
