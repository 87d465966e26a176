"""Nonsense in an answer, as each wire format reads it: counts that can't be are not told, and no word gets further."""

import json
from typing import Any

import pytest
from msgspec import Raw
from trunkline_actors.adapters import Chunk, End, anthropic_stream, gemini_answer, ollama_wire, wire
from trunkline_actors.adapters.anthropic_answer import read_message
from trunkline_actors.adapters.responses import ResponsesReader, read_response
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage

WHO = ollama_wire.Identity("chatcmpl-1", 5, "m")
MADE = gemini_answer.Made(ident="made", now=5, model="m")
NONSENSE: list[Any] = [-1, 1.5, "7", [], {}, True, float("inf")]


def read(reader: Any, *events: Any) -> tuple[list[Chunk], End | Failure]:
    chunks: list[Chunk] = []
    try:
        for event in events:
            chunks += reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
        chunks += reader.finish()
        return chunks, reader.end()
    except UpstreamError as error:
        return chunks, error.failure


# -- OpenAI's Responses


def response(usage: Any) -> dict[str, Any]:
    said = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}
    return {"id": "r", "created_at": 5, "model": "m", "status": "completed", "output": [said], "usage": usage}


USAGES: list[Any] = [
    *({"input_tokens": count, "output_tokens": 1} for count in NONSENSE),
    *({"input_tokens": 1, "output_tokens": count} for count in (*NONSENSE, None, -7_500_000)),
    {"input_tokens": 1, "output_tokens": 1, "input_tokens_details": {"cached_tokens": -1}},
    {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": "7"}},
    {"input_tokens": 1, "output_tokens": 1, "input_tokens_details": 7},
    *({}, [], "7", 7, None),
]


@pytest.mark.parametrize("usage", USAGES, ids=str)
def test_nonsense_in_a_response_is_no_usage(usage: Any) -> None:
    body = json.dumps(response(usage)).replace("Infinity", "1e300").encode()
    answer = read_response(body)
    assert (answer.usage, "usage" in json.loads(answer.body)) == (None, False)


@pytest.mark.parametrize("usage", USAGES, ids=str)
def test_nonsense_in_a_stream_of_a_response_is_no_usage(usage: Any) -> None:
    reader = ResponsesReader(include_usage=True)
    created = {"type": "response.created", "response": response(None)}
    event = json.dumps({"type": "response.completed", "response": response(usage)}).replace("Infinity", "1e300")
    chunks, end = read(reader, created, json.loads(event))
    assert (len(chunks), end) == (2, End(usage=None, finish="stop"))


def test_a_response_that_counts_more_cached_than_it_was_given_is_held_to_that() -> None:
    usage = {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 9}}
    usage["output_tokens_details"] = {"reasoning_tokens": 9}
    told = read_response(json.dumps(response(usage)).encode()).usage
    assert told == Usage(input_tokens=4, cached_input_tokens=4, output_tokens=2, reasoning_tokens=2)


# -- OpenAI's Chat Completions


def chunk(index: Any = 0, text: str = "", finish: str | None = None) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


@pytest.mark.parametrize("usage", [{}, {"total_tokens": 7}, {"prompt_tokens": None, "completion_tokens": None}])
def test_usage_without_counts_is_none(usage: Any) -> None:
    assert wire.read_usage(Raw(json.dumps(usage).encode())) is None


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": -1}])
def test_a_usage_chunk_without_usage_is_kept_from_who_did_not_ask(usage: Any) -> None:
    chunks, end = read(wire.StreamReader(include_usage=False), chunk(finish="stop"), {"choices": [], "usage": usage})
    assert (len(chunks), end) == (1, End(usage=None, finish="stop"))


@pytest.mark.parametrize("told", ["NaN", "sNaN", "-sNaN", "Infinity", "-Infinity", "-0.1", "1E+999999", "-1E-999999"])
def test_what_cannot_be_charged_is_not_told(told: str) -> None:
    alone = json.dumps({"cost": told}).encode()
    beside = json.dumps({"cost": 1, "is_byok": True, "cost_details": {"upstream_inference_cost": told}}).encode()
    assert (wire.read_charge(Raw(alone)), wire.read_charge(Raw(beside))) == (None, None)


def test_a_stream_of_several_choices_is_cut_until_all_that_began_have_finished() -> None:
    begun = [chunk(0, "a"), chunk(1, "b"), chunk(0, finish="stop")]
    _, cut = read(wire.StreamReader(include_usage=False), *begun)
    assert isinstance(cut, Failure)
    assert cut.kind is FailureClass.CONNECTION
    late = chunk(0)  # such as what a filter says afterwards
    _, end = read(wire.StreamReader(include_usage=False), *begun, late, chunk(1, finish="length"))
    assert end == End(usage=None, finish="length")


def test_choices_without_an_index_are_one() -> None:
    _, end = read(wire.StreamReader(include_usage=False), chunk(None, "a"), chunk(None, finish="stop"))
    assert end == End(usage=None, finish="stop")


# -- Gemini


@pytest.mark.parametrize("usage", [{}, {"totalTokenCount": 7}])
def test_usage_of_gemini_without_counts_is_none(usage: Any) -> None:
    assert gemini_answer.read_usage(Raw(json.dumps(usage).encode())) is None


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("JAILBREAK", " (JAILBREAK)"), ("SAFETY", " (SAFETY)"), ("sk-live-1", ""), ("hunter2", ""), ("x" * 10_000, "")],
)
def test_only_googles_own_names_say_why_a_prompt_was_blocked(reason: str, shown: str) -> None:
    with pytest.raises(UpstreamError) as raised:
        gemini_answer.read_completion(json.dumps({"promptFeedback": {"blockReason": reason}}).encode(), MADE)
    assert raised.value.failure.message == f"upstream blocked the prompt{shown}"


@pytest.mark.parametrize(("reason", "shown"), [("OTHER", " (OTHER)"), ("hunter2", "")])
def test_only_googles_own_names_say_why_nothing_was_answered(reason: str, shown: str) -> None:
    with pytest.raises(UpstreamError) as raised:
        gemini_answer.read_completion(json.dumps({"candidates": [{"finishReason": reason}]}).encode(), MADE)
    assert raised.value.failure.message == f"upstream answered nothing{shown}"


# -- Anthropic


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 3}, {"output_tokens": -1}, None])
def test_a_message_that_does_not_count_its_output_tells_no_usage(usage: Any) -> None:
    answer = read_message(json.dumps({"id": "m", "content": [], "usage": usage}).encode(), created=5)
    assert (answer.usage, "usage" in json.loads(answer.body)) == (None, False)


@pytest.mark.parametrize("usage", [None, {}, {"output_tokens": "9"}, {"output_tokens": -9}, {"output_tokens": None}])
def test_what_a_stream_of_messages_begins_with_is_not_what_it_used(usage: Any) -> None:
    begun = {"id": "m", "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}}
    chunks, end = read(
        anthropic_stream.StreamReader(include_usage=True, created=5),
        {"type": "message_start", "message": begun},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a long answer"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    )
    assert (len(chunks), end) == (3, End(usage=None, finish="stop"))


# -- Ollama


@pytest.mark.parametrize("count", NONSENSE)
@pytest.mark.parametrize("field", ["prompt_eval_count", "eval_count"])
def test_counts_of_ollama_that_are_none_are_not_told(field: str, count: Any) -> None:
    counts = {"prompt_eval_count": 3, "eval_count": 2, field: count}
    body = json.dumps({"message": {"content": "hi"}, "done": True, **counts}).replace("Infinity", "1e300").encode()
    assert ollama_wire.read_completion(body, WHO).usage is None
    reader = ollama_wire.StreamReader(WHO, include_usage=True)
    assert len(list(reader.feed(body + b"\n"))) == 2
    assert reader.end() == End(usage=None, finish="stop")


@pytest.mark.parametrize("count", NONSENSE)
def test_a_count_of_embeddings_of_ollama_that_is_none_is_not_told(count: Any) -> None:
    body = json.dumps({"embeddings": [[1.0]], "prompt_eval_count": count}).replace("Infinity", "1e300").encode()
    assert ollama_wire.read_embeddings(body, "m", "float").usage is None
