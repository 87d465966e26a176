"""The openai package as it is, with nothing changed but its base URL."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
import upstream as up
from audit import history, kinds
from far import WHOLE, serving
from messages import register
from openai import AsyncOpenAI
from pydantic import BaseModel
from trunkline.client import Gateway
from upstream import Reply, Request, Upstream

pytest_plugins = ["gateway", "edge_kit"]

MESSAGES: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def client(edge_url: str, gw: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, without retries unless a test wants them."""
    async with AsyncOpenAI(base_url=f"{edge_url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


async def test_it_chats_and_streams_and_lists_models(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert whole.choices[0].message.content == "hello there"
    assert whole._request_id
    stream = await client.chat.completions.create(
        model="echo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello there"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["echo", "fails", "slow", "tokens"]
    assert models[0].owned_by == "scripted"
    assert time.time() - 60 < models[0].created <= time.time()


async def test_it_finds_models_whose_ids_have_slashes(client: AsyncOpenAI, gw: Gateway) -> None:
    await gw.models.register(id="meta/llama 3?", provider="scripted", upstream="echo")
    assert (await client.models.retrieve("meta/llama 3?")).id == "meta/llama 3?"
    async with httpx2.AsyncClient(base_url=str(client.base_url)) as bare:
        assert (await bare.get("models/meta/llama 3%3F")).json()["id"] == "meta/llama 3?"
        assert (await bare.get("models/meta%2Fllama%203%3F")).json()["id"] == "meta/llama 3?"
    with pytest.raises(openai.NotFoundError) as raised:
        await client.models.retrieve("none/such")
    assert raised.value.code == "model_not_found"
    await gw.models.disable(id="tokens")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("tokens")


async def test_it_is_called_tools_and_its_streams_of_them_add_up(client: AsyncOpenAI, gw: Gateway) -> None:
    await gw.models.register(id="caller", provider="scripted", upstream="tool", features=["tools"])
    tool: Any = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    whole = await client.chat.completions.create(model="caller", messages=MESSAGES, tools=[tool])
    called: Any = whole.choices[0].message.tool_calls
    assert called[0].function.name == "find"
    async with client.chat.completions.stream(model="caller", messages=MESSAGES, tools=[tool]) as stream:
        final = await stream.get_final_completion()
    added: Any = final.choices[0].message.tool_calls
    assert added[0].function.arguments == '{"query":"hello there"}'


class Fact(BaseModel):
    """What a model is to answer."""

    name: str
    size: int


async def test_it_parses_what_a_schema_asked_for(client: AsyncOpenAI, gw: Gateway) -> None:
    await gw.models.register(
        id="json", provider="scripted", upstream='say:{"name": "a", "size": 3}', features=["json_schema"]
    )
    parsed = await client.chat.completions.parse(model="json", messages=MESSAGES, response_format=Fact)
    assert parsed.choices[0].message.parsed == Fact(name="a", size=3)


@pytest.mark.parametrize(
    ("script", "raised"),
    [
        ("fail:rate_limited", openai.RateLimitError),
        ("fail:invalid_request", openai.BadRequestError),
        ("fail:context_length", openai.BadRequestError),
        ("fail:unavailable", openai.InternalServerError),
        ("fail:internal", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_are_raised_as_its_own_exceptions(
    client: AsyncOpenAI, gw: Gateway, script: str, raised: type[openai.APIStatusError], stream: bool
) -> None:
    await register(gw, bad=script)
    with pytest.raises(raised) as caught:
        await client.chat.completions.create(
            model="bad", messages=MESSAGES, stream=stream, extra_body={"route": {"attempts": 1}}
        )
    assert caught.value.request_id
    assert caught.value.code
    assert caught.value.type


async def test_a_stream_cut_midway_raises(client: AsyncOpenAI, gw: Gateway) -> None:
    await register(gw, cutting="cut:3")
    stream: Any = await client.chat.completions.create(model="cutting", messages=MESSAGES, stream=True)
    for _ in range(3):
        assert (await anext(stream)).object == "chat.completion.chunk"
    with pytest.raises(openai.APIError):
        await anext(stream)


async def test_it_retries_what_may_help_after_the_time_it_is_told(client: AsyncOpenAI, gw: Gateway) -> None:
    tries: list[float] = []

    async def handler(_request: Request) -> Reply:
        tries.append(time.monotonic())
        return up.answer({"error": {"message": "busy"}}, 429, retry_after="1") if len(tries) == 1 else up.answer(WHOLE)

    async with serving(gw, Upstream(handler=handler)):
        patient = client.with_options(max_retries=1)
        answer = await patient.chat.completions.create(
            model="m", messages=MESSAGES, extra_body={"route": {"attempts": 1}}
        )
    assert answer.choices[0].message.content == "whole"
    assert len(tries) == 2
    assert tries[1] - tries[0] >= 0.9


async def test_it_does_not_retry_what_no_retry_helps(client: AsyncOpenAI, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="poor", budget={"limit_usd": "0.000001"})
    patient = client.with_options(max_retries=3)
    with pytest.raises(openai.RateLimitError) as caught:
        await patient.chat.completions.create(
            model="echo", messages=MESSAGES, max_tokens=500, extra_headers={"x-trunkline-thread": "poor"}
        )
    assert caught.value.type == "insufficient_quota"
    assert kinds(await history(gw, "poor")).count("refused") == 1
