"""OpenAI's Responses API at the edge, as its own client uses it."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import openai
import pydantic
import pytest
from trunkline.client import Gateway
from trunkline.gateway.edge import Edge
from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Upstream
from wires import Called, Said, Wire, wires
from wires.anthropic import SIGNATURE

pytest_plugins = ["gateway", "edge_kit"]

_FREE = {"input": "0", "output": "0"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture
async def client(edge_url: str, gw: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, pointed at the edge."""
    for name, upstream in {"tool": "tool", "think": "think:let me see", "cut": "cut:3"}.items():
        await gw.models.register(id=name, provider="scripted", upstream=upstream, features=["tools"])
    async with openai.AsyncOpenAI(base_url=f"{edge_url}/v1", api_key="tl-any", max_retries=0) as made:
        yield made


@pytest.fixture
async def upstream(gw: Gateway) -> AsyncIterator[Upstream]:
    """What `at_openai` and `at_anthropic` are served by; what it says is put in `replies`."""
    async with Upstream(Reply()).serving() as server:
        server.replies = []
        for kind in ("openai", "anthropic"):
            url = wires()[kind].base_url(server.url.removesuffix("/v1"))
            await gw.providers.register(id=kind, kind=kind, base_url=url, local=True)
            await gw.models.register(
                id=f"at_{kind}",
                provider=kind,
                upstream="claude-sonnet-4-5",
                price=_FREE,
                features=["tools", "thinking", "json_schema", "vision"],
            )
        yield server


def streamed(wire: Wire, said: Said) -> Reply:
    told = wire.stream(said)
    return Reply(list(told.events), 200, {"content-type": told.content_type})


async def test_a_response_is_answered_with_its_usage_and_receipt(client: openai.AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model="echo", input="hello there", instructions="Be brief.", metadata={"a": "b"}
    )
    response = raw.parse()
    assert response.output_text == "hello there"
    assert (response.object, response.status, response.previous_response_id) == ("response", "completed", None)
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (4, 2, 6)
    assert raw.headers["x-trunkline-model"] == "echo"
    assert float(raw.headers["x-trunkline-cost-usd"]) > 0


async def test_a_stream_comes_in_the_order_of_the_api(client: openai.AsyncOpenAI) -> None:
    events = [event async for event in await client.responses.create(model="think", input="hi", stream=True)]
    kinds = [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello from the scripted provider."
    assert last.response.usage is not None
    assert last.response.usage.output_tokens_details.reasoning_tokens == 3


async def test_a_tool_is_called_in_a_stream_and_its_result_used(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="tool", input="hello there", tools=[WEATHER]) as stream:
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert "response.function_call_arguments.done" in kinds
    (call,) = response.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"query": "hello there"})
    turns: Any = [
        {"role": "user", "content": "hello there"},
        *response.output,
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 20°"},
    ]
    answer = await client.responses.create(model="tool", input=turns, tools=[WEATHER])
    assert answer.output_text == "sunny, 20°"


async def test_a_limit_leaves_the_response_incomplete(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model="tokens", input="hi", max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    events = [
        e async for e in await client.responses.create(model="tokens", input="hi", max_output_tokens=3, stream=True)
    ]
    assert events[-1].type == "response.incomplete"


async def test_errors_are_the_clients_own_classes(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(model="nope", input="hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="web_search"):
        await client.responses.create(model="echo", input="hi", tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError) as kept:
        await client.responses.create(model="echo", input="hi", store=True)
    assert kept.value.param == "store"
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        await client.responses.create(model="echo", input="hi", previous_response_id="resp_1")
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="fails", input="hi")
    assert (await client.responses.create(model="echo", input="hi", store=False)).output_text == "hi"


async def test_a_stream_that_breaks_raises_in_the_client(client: openai.AsyncOpenAI) -> None:
    heard: list[str] = []

    async def listen() -> None:
        async for event in await client.responses.create(model="cut", input="hi", stream=True):
            heard.append(event.type)  # noqa: PERF401 - what was heard before the error counts

    with pytest.raises(openai.APIError, match="broke off"):
        await listen()
    assert "response.output_text.delta" in heard
    assert heard[-1] == "response.failed"


class Answer(pydantic.BaseModel):
    """What the model is to answer."""

    city: str


async def test_an_answer_keeps_to_its_schema(client: openai.AsyncOpenAI, upstream: Upstream) -> None:
    wire = wires()["openai"]
    upstream.replies = [wire.whole(Said(text=('{"city":', '"Rome"}')))]
    image = "data:image/png;base64,aGk="
    content: Any = [
        {"type": "input_text", "text": "where?"},
        {"type": "input_image", "image_url": image, "detail": "auto"},
    ]
    asked: Any = [{"role": "user", "content": content}]
    response = await client.responses.parse(model="at_openai", input=asked, text_format=Answer, temperature=0.5)
    assert response.output_parsed == Answer(city="Rome")
    sent = json.loads(upstream.requests[-1].body)
    assert sent["response_format"]["json_schema"]["schema"]["required"] == ["city"]
    assert sent["temperature"] == 0.5
    assert sent["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": image, "detail": "auto"}}


async def test_several_calls_come_whole_from_a_real_wire(client: openai.AsyncOpenAI, upstream: Upstream) -> None:
    wire = wires()["openai"]
    calls = (
        Called("call_a", "get_weather", ('{"query": ', '"a"}')),
        Called("call_b", "get_weather", ('{"query":"b"}',)),
    )
    usage = Usage(input_tokens=12, cached_input_tokens=8, output_tokens=5)
    upstream.replies = [streamed(wire, Said(text=("So ", "be it"), calls=calls, finish="tool_calls", usage=usage))]
    async with client.responses.stream(model="at_openai", input="hi", tools=[WEATHER]) as stream:
        response = await stream.get_final_response()
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    given = [(i.call_id, json.loads(i.arguments)) for i in response.output if i.type == "function_call"]
    assert given == [("call_a", {"query": "a"}), ("call_b", {"query": "b"})]
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 8


async def test_signed_thinking_comes_back_to_anthropic_as_it_left(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    wire = wires()["anthropic"]
    call = Called("toolu_1", "get_weather", ('{"query": "x"}',))
    upstream.replies = [
        streamed(wire, Said(thinking=("let ", "me"), calls=(call,), finish="tool_calls")),
        wire.whole(Said(text=("sunny",))),
    ]
    async with client.responses.stream(
        model="at_anthropic", input="hi", tools=[WEATHER], reasoning={"effort": "low"}
    ) as stream:
        response = await stream.get_final_response()
    turns: Any = [
        {"role": "user", "content": "hi"},
        *response.output,
        {"type": "function_call_output", "call_id": "toolu_1", "output": "sunny"},
    ]
    await client.responses.create(model="at_anthropic", input=turns, tools=[WEATHER])
    sent = json.loads(upstream.requests[-1].body)
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "let me", "signature": SIGNATURE},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"query": "x"}},
    ]


async def test_a_refusal_of_the_provider_is_the_clients_error(client: openai.AsyncOpenAI, upstream: Upstream) -> None:
    refusing = wires()["openai"].refusing(FailureClass.CONTEXT_LENGTH)
    assert refusing is not None
    upstream.replies = [refusing]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="at_openai", input="hi")
    assert refused.value.code == "context_length_exceeded"


async def test_a_client_that_leaves_cuts_the_upstream_call(client: openai.AsyncOpenAI, edge: Edge, gw: Gateway) -> None:
    stream = await client.responses.create(
        model="slow", input="hi", stream=True, extra_headers={"x-trunkline-thread": "left"}
    )
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    async with aclosing(gw.events("thread", id="left", since=0)) as events:
        await stream.close()
        async for recorded in events:
            if recorded.type == "thread.aborted.v1":
                break


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":1}', b'{"model":"echo","input":[{"role":"x"}]}'])
async def test_a_body_that_is_no_request_is_refused_in_the_dialect(edge_url: str, gw: Gateway, body: bytes) -> None:
    async with aiohttp.ClientSession(base_url=edge_url) as http, http.post("/v1/responses", data=body) as answer:
        assert answer.status == 400
        told = await answer.json()
        assert told["error"]["type"] == "invalid_request_error"
        assert told["error"]["message"]
