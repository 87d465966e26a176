"""Anthropic's Messages API at the edge, as its own client uses it."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import anthropic
import pytest
from trunkline.client import Gateway
from trunkline.gateway.edge import Edge
from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Upstream
from wires import Called, Said, wires
from wires.anthropic import SIGNATURE

pytest_plugins = ["gateway", "edge_kit"]

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}},
}


@pytest.fixture
async def claude(edge_url: str, gw: Gateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's own client, pointed at the edge."""
    for name, upstream in {"tool": "tool", "think": "think:let me see", "cut": "cut:3"}.items():
        await gw.models.register(id=name, provider="scripted", upstream=upstream, features=["tools"])
    async with anthropic.AsyncAnthropic(base_url=edge_url, api_key="tl-any", max_retries=0) as client:
        yield client


@pytest.fixture
async def real(gw: Gateway) -> AsyncIterator[Upstream]:
    """A model `claude` at Anthropic, as its own server speaks; what it says is put in `replies`."""
    async with Upstream(Reply()).serving() as upstream:
        upstream.replies = []
        url = wires()["anthropic"].base_url(upstream.url.removesuffix("/v1"))
        await gw.providers.register(id="anthropic", kind="anthropic", base_url=url, local=True)
        await gw.models.register(
            id="claude", provider="anthropic", upstream="claude-sonnet-4-5", price=_FREE, features=["tools", "thinking"]
        )
        yield upstream


_FREE = {"input": "0", "output": "0"}


def said(said: Said, *, stream: bool) -> Reply:
    wire = wires()["anthropic"]
    if not stream:
        return wire.whole(said)
    told = wire.stream(said)
    return Reply(list(told.events), 200, {"content-type": told.content_type})


async def test_a_message_is_answered_with_its_usage_and_receipt(claude: anthropic.AsyncAnthropic) -> None:
    raw = await claude.messages.with_raw_response.create(model="echo", max_tokens=100, messages=HELLO)
    message = await raw.parse()
    assert [(block.type, getattr(block, "text", "")) for block in message.content] == [("text", "hello there")]
    assert (message.role, message.type, message.stop_reason) == ("assistant", "message", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 2)
    assert raw.headers["x-trunkline-model"] == "echo"
    assert float(raw.headers["x-trunkline-cost-usd"]) > 0
    assert message._request_id == raw.headers["x-request-id"]


async def test_a_stream_comes_in_the_order_of_the_api(claude: anthropic.AsyncAnthropic) -> None:
    events = [
        event
        async for event in await claude.messages.create(model="think", max_tokens=100, messages=HELLO, stream=True)
    ]
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    shape = [kind for at, kind in enumerate(kinds[1:-2]) if kind != "content_block_delta" or kinds[at] != kind]
    assert shape == ["content_block_start", "content_block_delta", "content_block_stop"] * 2
    assert [event.index for event in events if event.type == "content_block_start"] == [0, 1]
    end = events[-2]
    assert end.type == "message_delta"
    assert (end.usage.input_tokens, end.usage.output_tokens) == (2, 8)


async def test_a_stream_is_joined_by_the_client(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(model="think", max_tokens=100, messages=HELLO) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        message = await stream.get_final_message()
    assert text == "Hello from the scripted provider."
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_its_result_used(claude: anthropic.AsyncAnthropic, stream: bool) -> None:
    asked: Any = {"model": "tool", "max_tokens": 100, "tools": [WEATHER]}
    if stream:
        async with claude.messages.stream(messages=HELLO, **asked) as streaming:
            message = await streaming.get_final_message()
    else:
        message = await claude.messages.create(messages=HELLO, **asked)
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.name, block.input, message.stop_reason) == ("get_weather", {"query": "hello there"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sunny, 20°"}]}
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    answer = await claude.messages.create(messages=turns, **asked)
    assert [getattr(block, "text", "") for block in answer.content] == ["sunny, 20°"]


async def test_a_limit_says_that_it_was_reached(claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(model="tokens", max_tokens=3, messages=HELLO)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


async def test_errors_are_the_clients_own_classes(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await claude.messages.create(model="nope", max_tokens=9, messages=HELLO)
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["type"] == "error"
    assert missing.value.body["error"]["type"] == "not_found_error"
    tools: Any = [{"type": "bash_20250124", "name": "bash"}]
    with pytest.raises(anthropic.BadRequestError, match="bash_20250124"):
        await claude.messages.create(model="echo", max_tokens=9, messages=HELLO, tools=tools)
    with pytest.raises(anthropic.BadRequestError, match="container"):
        await claude.messages.create(model="echo", max_tokens=9, messages=HELLO, extra_body={"container": "c"})
    with pytest.raises(anthropic.InternalServerError):
        await claude.messages.create(model="fails", max_tokens=9, messages=HELLO)


async def test_its_tool_runner_goes_on_without_a_thread(claude: anthropic.AsyncAnthropic) -> None:
    """It asks for a conversation that is kept, and hears that there is none in a code it knows."""
    asked: list[str] = []

    @anthropic.beta_async_tool
    async def find(query: str) -> str:
        """Find something."""
        asked.append(query)
        return "found"

    runner = claude.beta.messages.tool_runner(model="tool", max_tokens=100, messages=HELLO, tools=[find])
    final = await runner.until_done()
    assert [getattr(block, "text", "") for block in final.content] == ["found"]
    assert asked == ["hello there"]
    with pytest.raises(anthropic.BadRequestError, match="conversations aren't kept here"):
        await claude.messages.create(
            model="echo", max_tokens=9, messages=HELLO, extra_body={"thread": {"type": "create"}}
        )


async def test_tokens_are_not_counted_beforehand(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="usage"):
        await claude.messages.count_tokens(model="echo", messages=HELLO)


async def test_a_stream_that_breaks_raises_in_the_client(claude: anthropic.AsyncAnthropic) -> None:
    heard: list[str] = []

    async def listen() -> None:
        async for event in await claude.messages.create(model="cut", max_tokens=99, messages=HELLO, stream=True):
            heard.append(event.type)  # noqa: PERF401 - what was heard before the error counts

    with pytest.raises(anthropic.APIError, match="broke off"):
        await listen()
    assert "content_block_delta" in heard
    assert "message_stop" not in heard


async def test_signed_thinking_comes_back_to_anthropic_as_it_left(
    claude: anthropic.AsyncAnthropic, real: Upstream
) -> None:
    usage = Usage(input_tokens=100, cached_input_tokens=40, output_tokens=9, reasoning_tokens=4)
    call = Called("toolu_1", "get_weather", ('{"query"', ': "x"}'))
    thought = Said(thinking=("let ", "me"), text=("I'll ", "look"), calls=(call,), finish="tool_calls", usage=usage)
    real.replies = [said(thought, stream=True), said(Said(text=("sunny",)), stream=False)]
    asked: Any = {
        "model": "claude",
        "max_tokens": 5000,
        "tools": [WEATHER],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    async with claude.messages.stream(messages=HELLO, **asked) as streaming:
        message = await streaming.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert getattr(message.content[0], "signature", "") == SIGNATURE
    told = message.usage
    assert (told.input_tokens, told.cache_read_input_tokens, told.cache_creation_input_tokens) == (45, 40, 15)
    assert (told.output_tokens, message.stop_reason) == (9, "tool_use")
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}]},
    ]
    answer = await claude.messages.create(messages=turns, **asked)
    assert getattr(answer.content[0], "text", "") == "sunny"
    sent = json.loads(real.requests[-1].body)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "let me", "signature": SIGNATURE},
        {"type": "text", "text": "I'll look"},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"query": "x"}},
    ]


async def test_an_overloaded_provider_is_an_error_of_the_clients(
    claude: anthropic.AsyncAnthropic, real: Upstream
) -> None:
    refusing = wires()["anthropic"].refusing(FailureClass.CONTEXT_LENGTH)
    assert refusing is not None
    real.replies = [refusing]
    with pytest.raises(anthropic.BadRequestError, match="too long"):
        await claude.messages.create(model="claude", max_tokens=9, messages=HELLO)


async def test_a_client_that_leaves_cuts_the_upstream_call(
    claude: anthropic.AsyncAnthropic, edge: Edge, gw: Gateway
) -> None:
    stream = await claude.messages.create(
        model="slow", max_tokens=999, messages=HELLO, stream=True, extra_headers={"x-trunkline-thread": "left"}
    )
    async for event in stream:
        if event.type == "content_block_delta":
            break
    async with aclosing(gw.events("thread", id="left", since=0)) as events:
        await stream.close()
        async for recorded in events:
            if recorded.type == "thread.aborted.v1":
                break


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":1}', b'{"model":"echo","messages":[]}'])
async def test_a_body_that_is_no_request_is_refused_in_the_dialect(edge_url: str, gw: Gateway, body: bytes) -> None:
    async with aiohttp.ClientSession(base_url=edge_url) as http, http.post("/v1/messages", data=body) as answer:
        assert answer.status == 400
        told = await answer.json()
        assert told["type"] == "error"
        assert told["error"]["type"] == "invalid_request_error"
        assert told["error"]["message"]
