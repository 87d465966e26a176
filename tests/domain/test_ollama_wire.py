"""Ollama's wire format: what of an OpenAI request is sent, and what its answers mean."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.adapters import Call, Chunk, End
from trunkline_actors.adapters.management import PullProgress
from trunkline_actors.adapters.ollama_models import PullReader, full_name, read_described, read_models
from trunkline_actors.adapters.ollama_request import chat_request, embed_request
from trunkline_actors.adapters.ollama_wire import Identity, StreamReader, failure_of, read_completion, read_embeddings
from trunkline_actors.managed import Described, LocalModel
from trunkline_events.failure import FailureClass, UpstreamError

WHO = Identity("chatcmpl-ab12", 7, "qwen3")
PIXEL = "iVBORw0KGgo="
HI = [{"role": "user", "content": "hi"}]


def asked(limit: int | None = None, **fields: Any) -> dict[str, Any]:
    body = json.dumps({"model": "ours", "messages": HI, **fields}).encode()
    return chat_request(Call(body=body, model="qwen3", max_tokens=limit), stream=False)


def refusal(**fields: Any) -> str:
    with pytest.raises(UpstreamError) as caught:
        asked(**fields)
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST
    return caught.value.failure.message


def with_image(url: object) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]}


def line(**fields: Any) -> bytes:
    message = {"role": "assistant", "content": fields.pop("content", ""), **fields.pop("message", {})}
    return json.dumps({"model": "qwen3", "message": message, "done": False, **fields}).encode() + b"\n"


DONE = line(done=True, done_reason="stop", prompt_eval_count=3, eval_count=2)


def streamed(body: bytes, size: int = 1 << 20) -> tuple[str, str, list[dict[str, Any]], End | FailureClass]:
    chunks: list[Chunk] = []
    reader = StreamReader(WHO, include_usage=False)
    try:
        for start in range(0, len(body), size):
            chunks.extend(reader.feed(body[start : start + size]))
        chunks.extend(reader.finish())
        end: End | FailureClass = reader.end()
    except UpstreamError as error:
        end = error.failure.kind
    deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk.data)["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    thinking, text = ("".join(d.get(name, "") for d in deltas) for name in ("reasoning_content", "content"))
    assert sum(c.text_bytes for c in chunks) == len(
        (thinking + text + "".join(c["function"]["arguments"] for c in calls)).encode()
    )
    return thinking, text, calls, end


# -- requests


def test_options_go_where_ollama_looks_for_them() -> None:
    request = asked(temperature=0.2, top_p=0.9, seed=7, stop="END", max_tokens=9, options={"num_ctx": 8192})
    wanted = {"temperature": 0.2, "top_p": 0.9, "seed": 7, "stop": ["END"], "num_predict": 9, "num_ctx": 8192}
    assert request["options"] == wanted


def test_our_limit_wins_over_whatever_the_caller_asked() -> None:
    for given_ in ({"max_tokens": 99}, {"max_completion_tokens": 99}, {"options": {"num_predict": -1}}, {}):
        assert asked(5, **given_)["options"]["num_predict"] == 5


def test_a_prompt_that_is_too_long_is_not_cut_in_silence() -> None:
    assert asked()["truncate"] is False
    body = json.dumps({"model": "ours", "input": "hi"}).encode()
    assert embed_request(Call(body=body, model="m")).body["truncate"] is False


def test_a_schema_is_the_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert asked(response_format=wanted)["format"] == schema
    assert asked(response_format={"type": "json_object"})["format"] == "json"
    assert "format" not in asked(response_format={"type": "text"})
    assert "schema" in refusal(response_format={"type": "json_schema"})


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "none"}, False),
        ({"think": True, "reasoning_effort": "none"}, True),
        ({}, None),
    ],
)
def test_thinking_is_asked_for_by_effort(fields: dict[str, Any], think: object) -> None:
    assert asked(**fields).get("think") == think


def test_the_result_of_a_tool_finds_its_call_by_id() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": ""}},
    ]
    messages = [
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
        {"role": "tool", "tool_call_id": "a", "content": "snow"},
    ]
    said, *results = asked(messages=messages)["messages"]
    assert said["thinking"] == "hm"
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == [{"city": "Oslo"}, {}]
    assert [(result["tool_name"], result["content"]) for result in results] == [("time", "noon"), ("weather", "snow")]
    assert "tool_call_id" in refusal(messages=[{"role": "tool", "tool_call_id": "c", "content": "?"}])


def test_an_image_is_the_bytes_of_a_data_url() -> None:
    (message,) = asked(**with_image(f"data:image/png;base64,{PIXEL}"))["messages"]
    assert (message["content"], message["images"]) == ("what?", [PIXEL])


@pytest.mark.parametrize(
    "url",
    [
        *("/etc/passwd", "file:///etc/passwd", "https://example.org/a.png", PIXEL, "data:/etc/passwd", "", None, 7),
        *("data:image/png;base64,", "data:image/png;base64,/etc/passwd.png", "data:image/png,abc"),
    ],
)
def test_a_path_or_an_address_is_no_image(url: object) -> None:
    assert "data: URL" in refusal(**with_image(url))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": None},
        {"messages": [1]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "[]"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [7]}]},
        {"n": 2},
    ],
)
def test_what_ollama_cannot_carry_is_refused(fields: dict[str, Any]) -> None:
    assert refusal(**fields)


def test_one_named_tool_is_the_only_one_offered() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    assert asked(tools=tools)["tools"] == tools
    assert asked(tools=tools, tool_choice={"type": "function", "function": {"name": "b"}})["tools"] == tools[1:]
    assert "tools" not in asked(tools=tools, tool_choice="none")


# -- answers


def test_a_stream_without_done_was_cut() -> None:
    assert streamed(line(content="a") + line(content="b"))[1:] == ("ab", [], FailureClass.CONNECTION)
    assert streamed(line(content="a") + DONE[:-30])[3] is FailureClass.CONNECTION
    assert streamed(b"")[3] is FailureClass.INTERNAL


def test_a_last_line_needs_no_line_feed() -> None:
    end = streamed(line(content="a") + DONE.rstrip())[3]
    assert isinstance(end, End)
    assert end.usage is not None
    assert (end.finish, end.usage.input_tokens, end.usage.output_tokens) == ("stop", 3, 2)


def test_calls_without_ids_get_ids_that_differ_and_keep_those_they_have() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    body = line(message={"tool_calls": [call, {**call, "id": "theirs"}]}) + line(message={"tool_calls": [call]}) + DONE
    _, _, calls, end = streamed(body)
    assert [(c["index"], c["id"]) for c in calls] == [(0, "call_ab12_0"), (1, "theirs"), (2, "call_ab12_2")]
    assert isinstance(end, End)
    assert end.finish == "tool_calls"


@given(st.integers(1, 40), st.sampled_from(["<think>a b</think>c", "plain", "<think>ü"]), st.integers(1, 4))
def test_pieces_of_any_size_say_what_the_whole_says(size: int, text: str, step: int) -> None:
    lines = [line(content=text[start : start + step]) for start in range(0, len(text), step)]
    body = b"".join([*lines, DONE])
    whole = json.loads(read_completion(line(content=text, done=True), WHO).body)["choices"][0]["message"]
    thinking, said, _, end = streamed(body, size)
    assert (thinking, said) == (whole.get("reasoning_content", ""), whole["content"])
    assert isinstance(end, End)


def test_thinking_that_ollama_took_apart_is_left_as_it_is() -> None:
    body = line(message={"thinking": "hm"}) + line(content="<think>is a tag</think>") + DONE
    assert streamed(body)[:2] == ("hm", "<think>is a tag</think>")


@pytest.mark.parametrize(
    ("status", "sentence", "kind"),
    [
        (404, 'model "x" not found, try pulling it first', FailureClass.MODEL_NOT_FOUND),
        (400, '"x" does not support tools', FailureClass.INVALID_REQUEST),
        (400, "the input length exceeds the context length", FailureClass.CONTEXT_LENGTH),
        (503, "server busy, please try again.  maximum pending requests exceeded", FailureClass.OVERLOADED),
        (503, "", FailureClass.UNAVAILABLE),
        (500, "model requires more system memory", FailureClass.UNAVAILABLE),
        (200, "an error was encountered while running the model: unexpected EOF", FailureClass.UNAVAILABLE),
        (None, "the prompt is over the context window", FailureClass.CONTEXT_LENGTH),
    ],
)
def test_an_error_is_a_sentence_and_a_status(status: int | None, sentence: str, kind: FailureClass) -> None:
    assert failure_of(status, {}, json.dumps({"error": sentence}).encode()).kind is kind


def test_an_error_inside_a_stream_ends_it_after_what_came() -> None:
    body = line(content="a") + b'{"error": "runner died"}\n'
    assert streamed(body)[1:] == ("a", [], FailureClass.UNAVAILABLE)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"done": true}', b"null"])
def test_what_is_no_answer_is_a_failure(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        read_completion(body, WHO)
    assert streamed(body + b"\n")[3] is FailureClass.INTERNAL


def test_vectors_come_as_numbers_or_packed() -> None:
    body = json.dumps({"embeddings": [[1.0, -0.5]], "prompt_eval_count": 4}).encode()
    told = json.loads(read_embeddings(body, "m", "float").body)
    assert (told["data"][0]["embedding"], told["usage"]["prompt_tokens"]) == ([1.0, -0.5], 4)
    assert json.loads(read_embeddings(body, "m", "base64").body)["data"][0]["embedding"] == "AACAPwAAAL8="
    with pytest.raises(UpstreamError):
        read_embeddings(b'{"embeddings": [["a"]]}', "m", "base64")


# -- models


def test_a_list_says_what_is_loaded() -> None:
    details = {"family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M"}
    one = {"name": "qwen3:8b", "model": "qwen3:8b", "digest": "sha256:50", "size": 5, "details": details}
    tags = json.dumps({"models": [one, {"name": "a"}]}).encode()
    running = json.dumps({"models": [{**one, "size_vram": 4, "expires_at": "later"}]}).encode()
    first, second = read_models(tags, running)
    assert first == LocalModel(model="a")
    assert (second.digest, second.family, second.quantization) == ("50", "qwen3", "Q4_K_M")
    assert (second.loaded, second.memory_bytes) == (True, 4)
    assert not read_models(tags, None)[1].loaded
    assert read_models(b'{"models": null}', None) == []


def test_a_description_tells_the_window_and_what_it_can_do() -> None:
    shown = {
        "model_info": {"qwen3.context_length": 40960, "general.parameter_count": 8},
        "capabilities": ["completion", "tools", "thinking", "insert"],
    }
    described = Described(context_window=40960, features=["json_schema", "thinking", "tools"])
    assert read_described(json.dumps(shown).encode()) == described
    assert read_described(b"{}") == Described()


def test_progress_is_of_all_files_together_and_never_goes_back() -> None:
    reader = PullReader()
    told = reader.feed(b'{"status":"pulling manifest"}\n{"status":"pulling a","digest":"a","total":10,"comp')
    told += reader.feed(b'leted":4}\n{"status":"pulling b","digest":"b","total":5}\n{"digest":"a","total":10}\n')
    assert told[1] == PullProgress(status="pulling a", total_bytes=10, completed_bytes=4)
    assert told[3] == PullProgress(status="", total_bytes=15, completed_bytes=4)
    with pytest.raises(UpstreamError, match="never said success"):
        reader.finish()
    reader.feed(b'{"status":"success"}')
    assert reader.finish()[0].status == "success"


def test_a_line_may_come_in_very_many_pieces_and_not_be_without_end() -> None:
    """Copied anew with each piece it would be a terabyte, and this would never end."""
    text = b" " * 15_000_000
    for reader in (PullReader(), StreamReader(WHO, include_usage=False)):
        for start in range(0, len(text), 100):
            assert not list(reader.feed(text[start : start + 100]))
        with pytest.raises(UpstreamError, match="a line of more than"):
            reader.feed(b" " * 2_000_000)


def test_a_pull_is_not_of_files_without_end() -> None:
    with pytest.raises(UpstreamError, match="files of one model"):
        PullReader().feed(b"".join(b'{"digest":"%d","total":1}\n' % number for number in range(1001)))


def test_a_pull_that_fails_says_why() -> None:
    with pytest.raises(UpstreamError, match="file does not exist"):
        PullReader().feed(b'{"error":"pull model manifest: file does not exist"}\n')


def test_a_name_without_a_tag_means_latest() -> None:
    names = {"llama3.2": "llama3.2:latest", "a/b:8b": "a/b:8b", "localhost:5000/m": "localhost:5000/m:latest"}
    assert {name: full_name(name) for name in names} == names
