"""Models that OpenAI serves over its Responses API alone, asked and answered as Chat Completions."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from trunkline_actors.adapters import Answer, Call, Chunk, End
from trunkline_actors.adapters.dialect import DEEPSEEK, OPENAI
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_actors.adapters.responses_request import responses_body
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage
from upstream import SSE, Reply, Upstream, answer

ROOT = Path(__file__).parents[2]
TRANSCRIPTS = Path(os.environ.get("TRUNKLINE_TRANSCRIPTS", ROOT.parent / "shared" / "transcripts")) / "openai"

HEAD = {"id": "resp_1", "object": "response", "created_at": 1795262400, "model": "gpt-5-pro", "error": None}
USAGE = {
    "input_tokens": 90,
    "input_tokens_details": {"cached_tokens": 64},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 130,
}
COUNTED = Usage(input_tokens=90, cached_input_tokens=64, output_tokens=40, reasoning_tokens=30)
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
SAID = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "4 🌍"}]}
CALLED = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": '{"a": 2}'}


def response(*output: object, **more: object) -> dict[str, object]:
    return {**HEAD, "status": "completed", "output": list(output), "usage": USAGE, **more}


def stream_of(*named: tuple[str, Mapping[str, object]], after: Any = "complete") -> Reply:
    pieces = [
        b"event: %s\ndata: " % name.encode() + json.dumps({"type": name, **event}).encode() + b"\n\n"
        for name, event in named
    ]
    return Reply(pieces, 200, SSE, after)


CREATED = ("response.created", {"response": {**HEAD, "status": "in_progress", "output": []}})
THINKING = ("response.reasoning_summary_text.delta", {"output_index": 0, "delta": "Hm."})
ADDED = ("response.output_item.added", {"output_index": 2, "item": {**CALLED, "arguments": ""}})
WHOLE_STREAM = (
    CREATED,
    ("response.in_progress", {"response": HEAD}),
    ("response.output_item.added", {"output_index": 0, "item": {"type": "reasoning", "id": "rs_1"}}),
    THINKING,
    ("response.output_text.delta", {"output_index": 1, "delta": "4 "}),
    ("response.output_text.delta", {"output_index": 1, "delta": "🌍"}),
    ADDED,
    ("response.function_call_arguments.delta", {"output_index": 2, "delta": '{"a": '}),
    ("response.function_call_arguments.delta", {"output_index": 2, "delta": "2}"}),
    ("response.completed", {"response": response(THOUGHT, SAID, CALLED)}),
)


@asynccontextmanager
async def calling(*replies: Reply, way: Literal["raw", "sdk"]) -> AsyncIterator[tuple[OpenAICompatible, Upstream]]:
    async with Upstream(*replies).serving() as upstream:
        adapter = OpenAICompatible(upstream.url, transport=way, local=True, dialect=OPENAI, api_key="k" * 16)
        try:
            yield adapter, upstream
        finally:
            await adapter.close()


both = pytest.mark.parametrize("way", ["raw", "sdk"])


def call(*, include_usage: bool = False, limit: int | None = None, **fields: object) -> Call:
    body = {"model": "ours", "messages": [{"role": "user", "content": "hi"}], **fields}
    return Call(
        body=json.dumps(body).encode(),
        model="responses/gpt-5-pro",
        max_tokens=limit,
        timeout=10,
        include_usage=include_usage,
    )


async def streamed(adapter: OpenAICompatible, asked: Call) -> tuple[list[dict[str, Any]], int, End | Failure]:
    chunks: list[dict[str, Any]] = []
    size = 0
    try:
        async for item in adapter.stream(asked):
            if isinstance(item, End):
                return chunks, size, item
            assert isinstance(item, Chunk)
            ChatCompletionChunk.model_validate_json(item.data)
            chunks.append(json.loads(item.data))
            size += item.text_bytes
    except UpstreamError as error:
        return chunks, size, error.failure
    raise AssertionError("a stream without an end")


@both
async def test_a_whole_answer_is_a_chat_completion(way: Literal["raw", "sdk"]) -> None:
    async with calling(answer(response(THOUGHT, SAID, CALLED)), way=way) as (adapter, upstream):
        got = await adapter.complete(call())
    assert (upstream.requests[0].path, json.loads(upstream.requests[0].body)["model"]) == (
        "/v1/responses",
        "gpt-5-pro",
    )
    assert (got.finish, got.usage) == ("tool_calls", COUNTED)
    ChatCompletion.model_validate_json(got.body)
    body = json.loads(got.body)
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "4 🌍",
        "refusal": None,
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}],
    }
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 30}


@both
async def test_a_stream_is_chunks_and_one_end(way: Literal["raw", "sdk"]) -> None:
    async with calling(stream_of(*WHOLE_STREAM), way=way) as (adapter, upstream):
        chunks, size, end = await streamed(adapter, call(include_usage=True))
        assert (await streamed(adapter, call()))[0] == chunks[:-1]
        assert {request.connection for request in upstream.requests} == {1}
    assert end == End(usage=COUNTED, finish="tool_calls")
    *chunks, last = chunks
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 130)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "4 🌍"
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hm."
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    assert (parts[0]["id"], parts[0]["function"]["name"], parts[0]["index"]) == ("call_1", "add", 0)
    assert "".join(part["function"]["arguments"] for part in parts) == '{"a": 2}'
    assert size == len('4 🌍Hm.{"a": 2}'.encode())


@pytest.mark.parametrize(
    ("more", "finish"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
async def test_an_answer_says_why_it_ended(more: dict[str, object], finish: str) -> None:
    name = "response.incomplete" if more else "response.completed"
    ended = stream_of(CREATED, (name, {"response": response(SAID, **more)}))
    async with calling(answer(response(SAID, **more)), ended, way="raw") as (adapter, _):
        assert (await adapter.complete(call())).finish == finish
        end = (await streamed(adapter, call()))[2]
    assert isinstance(end, End)
    assert end.finish == finish


LIMITED = {"code": "rate_limit_exceeded", "message": "slow"}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (stream_of(CREATED, ("error", {"error": LIMITED})), FailureClass.RATE_LIMITED),
        (stream_of(CREATED, ("error", LIMITED)), FailureClass.RATE_LIMITED),
        (stream_of(CREATED, ("response.failed", {"response": {**HEAD, "error": LIMITED}})), FailureClass.RATE_LIMITED),
        (stream_of(CREATED, THINKING), FailureClass.CONNECTION),
        (stream_of(CREATED, THINKING, after="cut"), FailureClass.CONNECTION),
        (stream_of(), FailureClass.INTERNAL),
        (stream_of(("response.output_text.delta", {})), FailureClass.INTERNAL),
        (Reply([b"data: {garbage\n\n"], 200, SSE), FailureClass.INTERNAL),
        (Reply([b"data: [1]\n\n"], 200, SSE), FailureClass.INTERNAL),
        (answer({"error": LIMITED}, 429), FailureClass.RATE_LIMITED),
        (answer({"error": LIMITED}), FailureClass.RATE_LIMITED),
        (answer({"id": "1", "choices": []}), FailureClass.INTERNAL),
    ],
)
@both
async def test_what_goes_wrong_is_a_typed_failure(reply: Reply, kind: FailureClass, way: Literal["raw", "sdk"]) -> None:
    async with calling(reply, way=way) as (adapter, _):
        end = (await streamed(adapter, call()))[2]
        assert isinstance(end, Failure)
        assert end.kind is kind
        if reply.headers != SSE:
            with pytest.raises(UpstreamError) as caught:
                await adapter.complete(call())
            assert caught.value.failure.kind is kind


async def test_other_models_and_other_upstreams_keep_to_chat_completions() -> None:
    whole = {"id": "1", "object": "chat.completion", "choices": [{"message": {"content": "hi"}}]}
    async with Upstream(answer(whole)).serving() as upstream:
        for dialect, model in ((OPENAI, "gpt-5"), (DEEPSEEK, "responses/x")):
            adapter = OpenAICompatible(upstream.url, local=True, dialect=dialect)
            assert isinstance(await adapter.complete(Call(body=call().body, model=model)), Answer)
            await adapter.close()
    assert {request.path for request in upstream.requests} == {"/v1/chat/completions"}


def sent(**fields: object) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(responses_body(call(**fields), stream=False))  # type: ignore[arg-type]
    return body


PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("fields", "carried"),
    [
        ({"max_tokens": 64}, {"max_output_tokens": 64}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 16}),
        ({"max_tokens": 100, "limit": 32}, {"max_output_tokens": 32}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"temperature": 0.5, "user": "u", "top_p": None}, {"temperature": 0.5, "user": "u"}),
        ({"store": True}, {"store": True}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
            {
                "tools": [{"type": "function", "name": "add", "parameters": PARAMETERS, "strict": False}],
                "tool_choice": {"type": "function", "name": "add"},
            },
        ),
        (
            {
                "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": PARAMETERS}},
                "verbosity": "low",
            },
            {"text": {"format": {"type": "json_schema", "name": "w", "schema": PARAMETERS}, "verbosity": "low"}},
        ),
        ({"metadata": {"thread_id": "t", "a": "b"}, "route": {}, "stream": True}, {"metadata": {"a": "b"}}),
        ({"n": 1, "stop": None, "frequency_penalty": 0, "seed": None}, {}),
    ],
)
def test_a_request_is_carried_over(fields: dict[str, object], carried: dict[str, object]) -> None:
    plain = {"model": "gpt-5-pro", "input": [{"role": "user", "content": "hi"}], "store": False}
    assert sent(**fields) == {**plain, **carried}


def test_messages_become_items() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "what?"}, IMAGE]},
        {"role": "assistant", "content": "I look.", "tool_calls": [{"id": "call_1", "function": CALLED}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "5"},
    ]
    assert sent(messages=messages)["input"] == [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
            ],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 2}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "5"},
    ]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"stop": ["END"]}, "stop"),
        ({"n": 2}, "n"),
        ({"seed": 1}, "seed"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        ({"messages": 5}, "Chat Completions"),
        ({"messages": [{}]}, "Chat Completions"),
    ],
)
def test_what_the_api_cannot_carry_is_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        sent(**fields)
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST
    assert named in caught.value.failure.message


@pytest.mark.skipif(not TRANSCRIPTS.is_dir(), reason="the recorded transcripts are not here")
async def test_recorded_streams_are_read_as_they_were_meant() -> None:
    replies = []
    for name in ("responses-phase", "responses-error"):
        lines = (TRANSCRIPTS / f"{name}.chunks.txt").read_text(encoding="utf-8").splitlines()
        replies.append(Reply([f"data: {line}\n\n".encode() for line in lines if line], 200, SSE))
    async with calling(*replies, way="raw") as (adapter, _):
        chunks, size, end = await streamed(adapter, call())
        failure = (await streamed(adapter, call()))[2]
    assert end == End(
        usage=Usage(input_tokens=7112, cached_input_tokens=3072, output_tokens=463, reasoning_tokens=64), finish="stop"
    )
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert len(text.encode()) == size > 0
    assert isinstance(failure, Failure)
    assert failure.kind is FailureClass.AUTH
