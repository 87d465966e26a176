"""The scripts of the scripted upstream, each as its documentation says."""

import base64
import json
import math
import struct
from typing import Any

import pytest
from trunkline_actors.adapters import Answer, Call, Chunk, End
from trunkline_actors.adapters.scripted import Scripted
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

SAY = "Hello from the scripted provider."
MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "how are you?"}]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]


def call(script: str, max_tokens: int | None = None, timeout: float = 5.0, **fields: object) -> Call:
    body = json.dumps({"messages": MESSAGES, **fields}).encode()
    return Call(body=body, model=script, max_tokens=max_tokens, include_usage=True, timeout=timeout)


async def whole(call: Call) -> tuple[dict[str, Any], Answer]:
    answer = await Scripted().complete(call)
    message = json.loads(answer.body)["choices"][0]["message"]
    assert message.pop("role") == "assistant"
    return message, answer


async def streamed(call: Call) -> tuple[list[dict[str, Any]], End]:
    items = [item async for item in Scripted().stream(call)]
    end = items.pop()
    assert isinstance(end, End)
    return [json.loads(item.data) for item in items if isinstance(item, Chunk)], end


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo", {"content": "how are you?"}),
        ("say", {"content": SAY}),
        ("say:a: b", {"content": "a: b"}),
        ("say:", {"content": ""}),
        ("think:let me see", {"content": SAY, "reasoning_content": "let me see"}),
        ("tokens:3", {"content": "w1 w2 w3"}),
        ("tokens:0", {"content": ""}),
        ("tokens:3@10000", {"content": "w1 w2 w3"}),
        ("tool", {"content": SAY}),
    ],
)
async def test_a_script_says_the_same_streamed_and_whole(script: str, message: dict[str, str]) -> None:
    said, answer = await whole(call(script))
    assert said == message
    chunks, end = await streamed(call(script))
    assert (end.usage, end.finish) == (answer.usage, answer.finish) == (answer.usage, "stop")
    for field in ("content", "reasoning_content"):
        assert "".join(c["choices"][0]["delta"].get(field, "") for c in chunks[:-1]) == message.get(field, "")
    assert answer.usage is not None
    assert answer.usage.input_tokens == 5
    assert answer.usage.output_tokens == sum(len(text.split()) for text in message.values())


async def test_a_stream_has_openais_shape() -> None:
    chunks, _ = await streamed(call("say:a b"))
    assert len({c["id"] for c in chunks}) == 1
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert [c["choices"][0]["delta"] for c in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": " b"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None, None, None, "stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 7


@pytest.mark.parametrize(
    ("script", "limit", "message", "spent", "thought"),
    [
        ("tokens:9", 2, {"content": "w1 w2"}, 2, 0),
        ("think:a b c", 2, {"content": "", "reasoning_content": "a b"}, 2, 2),
        ("think:a b c", 4, {"content": "Hello", "reasoning_content": "a b c"}, 4, 3),
    ],
)
async def test_a_limit_ends_the_answer(
    script: str, limit: int, message: dict[str, str], spent: int, thought: int
) -> None:
    usage = Usage(input_tokens=5, output_tokens=spent, reasoning_tokens=thought)
    for limited in (call(script, limit), call(script, max_tokens=limit), call(script, max_completion_tokens=limit)):
        said, answer = await whole(limited)
        assert (said, answer.usage, answer.finish) == (message, usage, "length")
        assert (await streamed(limited))[1] == End(usage=usage, finish="length")


async def test_a_limit_that_is_just_enough_ends_nothing() -> None:
    assert (await whole(call("tokens:3", 3)))[1].finish == "stop"


async def test_a_tool_is_called_and_its_answer_told() -> None:
    said, answer = await whole(call("tool", tools=TOOLS))
    assert answer.finish == "tool_calls"
    assert said["content"] is None
    assert said["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"query":"how are you?"}'}
    items = [item async for item in Scripted().stream(call("tool", tools=TOOLS))]
    assert sum(item.text_bytes for item in items if isinstance(item, Chunk)) == len('{"query":"how are you?"}')
    told = [*MESSAGES, {"role": "tool", "content": [{"type": "text", "text": "it"}, {"type": "image"}]}]
    assert (await whole(call("tool", tools=TOOLS, messages=told)))[0] == {"content": "it"}


@pytest.mark.parametrize("kind", list(FailureClass))
async def test_a_script_fails_with_any_class(kind: FailureClass) -> None:
    with pytest.raises(UpstreamError) as caught:
        await Scripted().complete(call(f"fail:{kind}:1.5"))
    assert (caught.value.failure.kind, caught.value.failure.retry_after) == (kind, 1.5)
    with pytest.raises(UpstreamError) as caught:
        await streamed(call(f"fail:{kind}"))
    assert (caught.value.failure.kind, caught.value.failure.retry_after) == (kind, None)


@pytest.mark.parametrize(
    "script",
    ["", "gpt", "echo:x", "think", "tokens", "tokens:x", "tokens:-1", "tokens:1000001", "tokens:1@0", "tokens:1@nan",
     "fail", "fail:nothing", "fail:auth:soon", "cut", "cut:x", "stall:x", "tool:x"],
)  # fmt: skip
async def test_no_such_script_is_no_such_model(script: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        await Scripted().complete(call(script))
    assert caught.value.failure.kind is FailureClass.MODEL_NOT_FOUND


@pytest.mark.parametrize("body", [b"", b"[]", b'{"messages": 1}'])
async def test_nonsense_is_an_invalid_request(body: bytes) -> None:
    for serve in (Scripted().complete, Scripted().embed):
        with pytest.raises(UpstreamError) as caught:
            await serve(Call(body=body, model="say"))
        assert caught.value.failure.kind is FailureClass.INVALID_REQUEST


@pytest.mark.parametrize(("script", "kind"), [("cut", FailureClass.CONNECTION), ("stall", FailureClass.TIMEOUT)])
async def test_a_stream_ends_badly_after_exactly_so_many_chunks(script: str, kind: FailureClass) -> None:
    for count in (0, 1, 4):
        stream = Scripted().stream(call(f"{script}:{count}", max_tokens=1, timeout=0.01))
        for _ in range(count):
            assert isinstance(await anext(stream), Chunk)
        with pytest.raises(UpstreamError) as caught:
            await anext(stream)
        assert caught.value.failure.kind is kind
        for serve in (Scripted().complete, Scripted().embed):
            with pytest.raises(UpstreamError) as caught:
                await serve(call(f"{script}:{count}", timeout=0.01))
            assert caught.value.failure.kind is kind


async def test_a_pace_outlasts_no_deadline() -> None:
    with pytest.raises(UpstreamError) as caught:
        await Scripted().complete(call("tokens:100@10", timeout=0.01))
    assert caught.value.failure.kind is FailureClass.TIMEOUT
    with pytest.raises(UpstreamError) as caught:
        await streamed(call("tokens:100@10", timeout=0.01))
    assert caught.value.failure.kind is FailureClass.TIMEOUT


def embeddings(given: object, **fields: object) -> Call:
    return Call(body=json.dumps({"input": given, **fields}).encode(), model="say")


async def test_embeddings_are_unit_vectors_the_same_each_time() -> None:
    answer = await Scripted().embed(embeddings(["a b", "c", "a b"]))
    vectors = [item["embedding"] for item in json.loads(answer.body)["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert math.isclose(math.hypot(*vectors[0]), 1)
    assert answer.usage == Usage(input_tokens=5)


@pytest.mark.parametrize(("given", "count"), [("a", 1), ([], 0), ([1, 2], 1), ([[1, 2], [3]], 2)])
async def test_embeddings_take_every_kind_of_input(given: object, count: int) -> None:
    assert len(json.loads((await Scripted().embed(embeddings(given))).body)["data"]) == count


async def test_embeddings_come_as_base64_and_in_any_size() -> None:
    floats = json.loads((await Scripted().embed(embeddings("x", dimensions=3))).body)["data"][0]["embedding"]
    packed = json.loads((await Scripted().embed(embeddings("x", dimensions=3, encoding_format="base64"))).body)
    assert struct.unpack("<3f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(floats)
    with pytest.raises(UpstreamError) as caught:
        await Scripted().embed(embeddings("x", dimensions=0))
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST
