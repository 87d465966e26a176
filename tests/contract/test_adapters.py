"""What every adapter guarantees: one suite, run against the scripted upstream, the same over HTTP, and llama.cpp."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct
from trunkline_actors.adapters import Adapter, Call, Chunk, End
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_actors.adapters.scripted import Scripted
from trunkline_events.failure import FailureClass, UpstreamError
from upstream import HANG_UP, SILENCE, SSE, Reply, Request, Upstream, answer, free_port

pytest_plugins = ["engine"]

WHERE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WHERE}}]


class Subject(Struct):
    """An adapter, and what to ask it for each scenario: the model and the last message."""

    adapter: Adapter
    asks: dict[str, tuple[str, str]]
    text: str
    thought: str

    def call(self, scenario: str, max_tokens: int | None = None, **fields: object) -> Call:
        model, prompt = self.asks[scenario]
        body = {"model": "ours", "messages": [{"role": "user", "content": prompt}], "route": {}, **fields}
        return Call(body=json.dumps(body).encode(), model=model, max_tokens=max_tokens, timeout=10)


SCRIPTS = {
    "text": ("say:Hello from afar; café ☃ done.", "hi"),
    "thinking": ("think:Let me see.", "hi"),
    "tool": ("tool", "hi"),
    "long": ("tokens:1000@2000", "hi"),
}
PROMPTS = {"text": ("tiny", "hi"), "thinking": ("tiny", "think"), "tool": ("tiny", "hi"), "long": ("tiny", "long")}


async def serve_script(request: Request) -> Reply:
    """The scripted upstream behind HTTP."""
    if request.method == "GET":
        return answer({"object": "list", "data": []})
    body = json.loads(request.body)
    call = Call(body=request.body, model=body["model"], include_usage=True)
    if request.path.endswith("/embeddings"):
        return Reply([(await Scripted().embed(call)).body])
    if not body.get("stream"):
        return Reply([(await Scripted().complete(call)).body])

    async def pieces() -> AsyncIterator[bytes]:
        async for item in Scripted().stream(call):
            yield b"data: " + (item.data if isinstance(item, Chunk) else b"[DONE]") + b"\n\n"

    return Reply(headers=SSE, pieces=pieces())


@pytest.fixture(params=["scripted", "http", "llama.cpp"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "llama.cpp":
        url = request.getfixturevalue("engine")
        async with closing(OpenAICompatible(f"{url}/v1", local=True)) as adapter:
            yield Subject(
                adapter, PROMPTS, "Hello from a real llama.cpp engine; café ☃ done.", "Let me think about it."
            )
    elif request.param == "http":
        async with (
            Upstream(handler=serve_script).serving() as upstream,
            closing(OpenAICompatible(upstream.url, local=True)) as it,
        ):
            yield Subject(it, SCRIPTS, "Hello from afar; café ☃ done.", "Let me see.")
    else:
        async with closing(Scripted()) as scripted:
            yield Subject(scripted, SCRIPTS, "Hello from afar; café ☃ done.", "Let me see.")


@asynccontextmanager
async def closing(adapter: Adapter) -> AsyncIterator[Adapter]:
    try:
        yield adapter
    finally:
        await adapter.close()


async def streamed(adapter: Adapter, call: Call) -> tuple[list[dict[str, Any]], int, End]:
    """The chunks, the bytes of text they say they hold, and the end."""
    items = [item async for item in adapter.stream(call)]
    end = items.pop()
    assert isinstance(end, End)
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert len(chunks) == len(items)
    return [json.loads(chunk.data) for chunk in chunks], sum(chunk.text_bytes for chunk in chunks), end


def joined(chunks: list[dict[str, Any]], field: str) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get(field) or "" for delta in deltas)


async def failure_of(adapter: Adapter, call: Call, *, stream: bool) -> FailureClass:
    with pytest.raises(UpstreamError) as caught:
        await (streamed(adapter, call) if stream else adapter.complete(call))
    return caught.value.failure.kind


async def test_a_whole_answer_is_a_chat_completion(subject: Subject) -> None:
    got = await subject.adapter.complete(subject.call("text"))
    body = json.loads(got.body)
    assert (body["object"], body["choices"][0]["message"]["content"]) == ("chat.completion", subject.text)
    assert got.finish == "stop"
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (
        body["usage"]["prompt_tokens"],
        body["usage"]["completion_tokens"],
    )
    assert got.usage.output_tokens > 0


async def test_a_stream_is_chunks_and_one_end(subject: Subject) -> None:
    chunks, size, end = await streamed(subject.adapter, subject.call("text"))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert (joined(chunks, "content"), size) == (subject.text, len(subject.text.encode()))
    assert all(chunk["choices"] for chunk in chunks)
    assert end.finish == "stop"
    assert end.usage is not None
    assert end.usage.output_tokens > 0


async def test_who_asked_for_the_usage_chunk_gets_it_last(subject: Subject) -> None:
    call = subject.call("text")
    asked = Call(body=call.body, model=call.model, include_usage=True)
    *chunks, last = (await streamed(subject.adapter, asked))[0]
    assert all(chunk["choices"] for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0


async def test_thinking_comes_as_reasoning_content(subject: Subject) -> None:
    whole = await subject.adapter.complete(subject.call("thinking"))
    assert json.loads(whole.body)["choices"][0]["message"]["reasoning_content"].strip() == subject.thought
    chunks, size, _ = await streamed(subject.adapter, subject.call("thinking"))
    assert joined(chunks, "reasoning_content").strip() == subject.thought
    assert size == len((joined(chunks, "reasoning_content") + joined(chunks, "content")).encode())


async def test_a_tool_is_called(subject: Subject) -> None:
    whole = await subject.adapter.complete(subject.call("tool", tools=TOOLS))
    called = json.loads(whole.body)["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (whole.finish, called["name"]) == ("tool_calls", "get_weather")
    chunks, size, end = await streamed(subject.adapter, subject.call("tool", tools=TOOLS))
    calls = [part for c in chunks for choice in c["choices"] for part in choice["delta"].get("tool_calls", ())]
    arguments = "".join(part["function"].get("arguments", "") for part in calls)
    assert (end.finish, json.loads(arguments), size) == (
        "tool_calls",
        json.loads(called["arguments"]),
        len(arguments.encode()),
    )


async def test_a_limit_ends_an_answer_with_length(subject: Subject) -> None:
    whole = await subject.adapter.complete(subject.call("long", max_tokens=5))
    assert whole.usage is not None
    assert (whole.finish, whole.usage.output_tokens) == ("length", 5)
    assert (await streamed(subject.adapter, subject.call("long", max_tokens=5)))[2].finish == "length"


async def test_closing_a_stream_ends_it_at_once_and_leaves_the_adapter_usable(subject: Subject) -> None:
    stream = subject.adapter.stream(subject.call("long"))
    assert isinstance(await anext(stream), Chunk)
    async with asyncio.timeout(1):
        await stream.aclose()
        await subject.adapter.complete(subject.call("text"))


async def test_many_calls_run_at_once(subject: Subject) -> None:
    answers = await asyncio.gather(*(subject.adapter.complete(subject.call("text")) for _ in range(8)))
    assert {json.loads(got.body)["choices"][0]["message"]["content"] for got in answers} == {subject.text}


async def test_a_body_that_is_no_request_is_refused(subject: Subject) -> None:
    for stream in (False, True):
        call = Call(body=b"[]", model="echo")
        assert await failure_of(subject.adapter, call, stream=stream) is FailureClass.INVALID_REQUEST


async def test_a_check_passes_where_the_upstream_is_there(subject: Subject) -> None:
    await subject.adapter.check()


async def test_a_closed_adapter_refuses(subject: Subject) -> None:
    await subject.adapter.close()
    assert await failure_of(subject.adapter, subject.call("text"), stream=False) is FailureClass.CONNECTION
    assert await failure_of(subject.adapter, subject.call("text"), stream=True) is FailureClass.CONNECTION
    with pytest.raises(UpstreamError):
        await subject.adapter.check()


# What an upstream does, as a script and as an HTTP reply: the same failure either way.
TROUBLES = {
    "stall": (SILENCE, FailureClass.TIMEOUT),
    "cut:0": (HANG_UP, FailureClass.CONNECTION),
    "fail:rate_limited": (answer({}, 429), FailureClass.RATE_LIMITED),
    "fail:overloaded": (answer({}, 529), FailureClass.OVERLOADED),
    "fail:auth": (answer({}, 401), FailureClass.AUTH),
    "fail:model_not_found": (answer({}, 404), FailureClass.MODEL_NOT_FOUND),
}


@asynccontextmanager
async def troubled(kind: str, trouble: str) -> AsyncIterator[tuple[Adapter, asyncio.Event]]:
    """The adapter, and what is set once a call has reached the upstream."""
    if kind == "scripted":
        async with closing(Scripted()) as adapter:
            reached = asyncio.Event()
            asyncio.get_running_loop().call_later(0.005, reached.set)
            yield adapter, reached
    else:
        async with (
            Upstream(TROUBLES[trouble][0]).serving() as server,
            closing(OpenAICompatible(server.url, local=True)) as it,
        ):
            yield it, server.asked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("kind", ["scripted", "http"])
async def test_trouble_upstream_is_a_failure_of_its_class(kind: str, trouble: str, stream: bool) -> None:
    async with troubled(kind, trouble) as (adapter, _):
        call = Call(body=b'{"messages":[]}', model=trouble, timeout=0.2 if trouble == "stall" else 10)
        assert await failure_of(adapter, call, stream=stream) is TROUBLES[trouble][1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["scripted", "http"])
async def test_closing_an_adapter_ends_the_calls_under_way(kind: str, stream: bool) -> None:
    async with troubled(kind, "stall") as (adapter, reached):
        call = Call(body=b'{"messages":[]}', model="stall", timeout=10)
        task = asyncio.create_task(failure_of(adapter, call, stream=stream))
        await reached.wait()
        await adapter.close()
        assert await task is FailureClass.CONNECTION


async def test_an_unknown_host_and_a_closed_port_are_connection_failures() -> None:
    for url in ("http://no-such-host.invalid/v1", f"http://127.0.0.1:{free_port()}/v1"):
        async with closing(OpenAICompatible(url, local=True)) as adapter:
            for stream in (False, True):
                call = Call(body=b"{}", model="m")
                assert await failure_of(adapter, call, stream=stream) is FailureClass.CONNECTION
