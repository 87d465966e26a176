"""Anthropic's answers, streams and errors as OpenAI's clients know them, and its signed thinking sent back."""

import json
from typing import Any

import pytest
from trunkline_actors.adapters import Call, Chunk, End
from trunkline_actors.adapters.anthropic_answer import read_message
from trunkline_actors.adapters.anthropic_faults import failure_of
from trunkline_actors.adapters.anthropic_request import messages_body
from trunkline_actors.adapters.anthropic_stream import StreamReader
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "ZW5j"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def sent_back(message: dict[str, Any]) -> Any:
    """The blocks that Anthropic gets of a message that a caller has from us."""
    asked = {"messages": [{"role": "user", "content": "hi"}, message]}
    made = json.loads(messages_body(Call(body=json.dumps(asked).encode(), model="claude-opus-5"), stream=False))
    return made["messages"][1]["content"]


def test_signed_thinking_goes_back_where_it_stood() -> None:
    blocks = [THOUGHT, text("I look."), HIDDEN, {"type": "tool_use", "id": "1", "name": "now", "input": {}}]
    answer = {"id": "m", "content": blocks, "stop_reason": "tool_use", "usage": {}}
    message = json.loads(read_message(json.dumps(answer).encode(), created=1).body)["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."
    assert sent_back(message) == blocks


def whole(**fields: object) -> dict[str, Any]:
    return {
        "id": "m",
        "model": "c",
        "content": [text("hi")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        **fields,
    }


@pytest.mark.parametrize(
    ("stopped", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("one_day_added", "stop"),
        (None, "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_a_reason_to_stop_is_openais_finish_reason(stopped: str | None, finish: str) -> None:
    answer = read_message(json.dumps(whole(stop_reason=stopped)).encode(), created=5)
    assert (answer.finish, json.loads(answer.body)["choices"][0]["finish_reason"]) == (finish, finish)


def test_a_refusal_says_why() -> None:
    why = {"type": "refusal", "category": "cyber", "explanation": "No."}
    said = read_message(json.dumps(whole(content=[], stop_reason="refusal", stop_details=why)).encode(), created=5)
    assert json.loads(said.body)["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": "No."}


def test_input_counts_what_was_read_from_the_cache_and_written_to_it() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 20, "output_tokens": 7}
    answer = read_message(json.dumps(whole(usage=usage)).encode(), created=5)
    assert answer.usage == Usage(input_tokens=89, cached_input_tokens=64, output_tokens=7)
    told = json.loads(answer.body)["usage"]
    assert told["prompt_tokens_details"] == {"cached_tokens": 64, "cache_write_tokens": 20}


# -- streams


def read(*events: dict[str, Any], usage: bool = False) -> tuple[list[Chunk], End]:
    reader = StreamReader(include_usage=usage, created=5)
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    chunks = [*reader.feed(data), *reader.finish()]
    return chunks, reader.end()


def deltas(chunks: list[Chunk]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in json.loads(chunk.data)["choices"]]


START = {
    "type": "message_start",
    "message": {"id": "m", "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}},
}
STOPPED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
STOP = {"type": "message_stop"}


def start(at: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": at, "content_block": block}


def piece(at: int, **delta: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": at, "delta": delta}


def stop(at: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": at}


def test_each_block_of_thinking_comes_whole_when_it_ends() -> None:
    chunks, end = read(
        START,
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        piece(0, type="thinking_delta", thinking="H"),
        piece(0, type="thinking_delta", thinking="m."),
        piece(0, type="signature_delta", signature="c2"),
        piece(0, type="signature_delta", signature="ln"),
        stop(0),
        start(1, HIDDEN),
        stop(1),
        start(2, text("")),
        piece(2, type="text_delta", text='"é'),
        stop(2),
        STOPPED,
        STOP,
    )
    said = deltas(chunks)
    assert [delta.get("reasoning_content") for delta in said[1:3]] == ["H", "m."]
    details = [detail for delta in said for detail in delta.get("reasoning_details", ())]
    message = {"role": "assistant", "content": "x", "reasoning_details": details}
    assert sent_back(message) == [THOUGHT, HIDDEN, text("x")]
    assert said[-2] == {"content": '"é'}
    assert sum(chunk.text_bytes for chunk in chunks) == 6
    assert end == End(usage=Usage(input_tokens=3, output_tokens=9), finish="stop")


@pytest.mark.parametrize("given", [{}, {"a": 1}])
def test_arguments_are_json_also_where_no_piece_of_them_came(given: dict[str, Any]) -> None:
    tool = {"type": "tool_use", "id": "1", "name": "now", "input": given}
    empty = piece(0, type="input_json_delta", partial_json="")
    chunks, _ = read(START, start(0, tool), empty, stop(0), STOPPED)
    parts = [part for delta in deltas(chunks) for part in delta.get("tool_calls", ())]
    assert parts[0] | {"function": None} == {"index": 0, "id": "1", "type": "function", "function": None}
    assert json.loads("".join(part["function"]["arguments"] for part in parts)) == given


def test_the_usage_chunk_has_the_last_counts() -> None:
    chunks, _ = read(START, STOPPED, STOP, usage=True)
    assert json.loads(chunks[-1].data)["usage"]["total_tokens"] == 12
    assert json.loads(chunks[-1].data)["choices"] == []


def test_unknown_events_and_blocks_are_passed_over() -> None:
    block = start(0, {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}})
    chunks, end = read(
        {"type": "ping"}, START, {"type": "added_later"}, block, stop(0), STOPPED, STOP, {"type": "ping"}
    )
    assert [delta for delta in deltas(chunks) if delta] == [{"role": "assistant", "content": ""}]
    assert end.finish == "stop"


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((), FailureClass.INTERNAL),
        (({"type": "ping"},), FailureClass.INTERNAL),
        ((piece(0, text="a"),), FailureClass.INTERNAL),
        (({"choices": []},), FailureClass.INTERNAL),
        ((START, piece(0, text="a")), FailureClass.CONNECTION),
        ((START, {"type": "error", "error": {"type": "overloaded_error"}}), FailureClass.OVERLOADED),
        ((START, {"type": "error", "error": {"type": "rate_limit_error"}}), FailureClass.RATE_LIMITED),
        ((START, {"type": "error", "error": {"type": "api_error"}}), FailureClass.UNAVAILABLE),
        ((START, {"type": "error", "error": {"type": "request_too_large"}}), FailureClass.CONTEXT_LENGTH),
        (
            ({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},),
            FailureClass.CONTEXT_LENGTH,
        ),
    ],
)
def test_a_stream_that_is_none_or_breaks_off_fails(events: tuple[dict[str, Any], ...], kind: FailureClass) -> None:
    with pytest.raises(UpstreamError) as caught:
        read(*events)
    assert caught.value.failure.kind is kind


# -- errors


@pytest.mark.parametrize(
    ("status", "type", "message", "code", "kind"),
    [
        (400, "invalid_request_error", "n: Extra inputs", None, FailureClass.INVALID_REQUEST),
        (400, "invalid_request_error", "Prompt is too long: 9 tokens > 8 maximum", None, FailureClass.CONTEXT_LENGTH),
        (400, "invalid_request_error", "Your credit balance is too low to access", None, FailureClass.AUTH),
        (400, "invalid_request_error", "On hold.", "organization_on_hold", FailureClass.AUTH),
        (401, "authentication_error", "invalid x-api-key", None, FailureClass.AUTH),
        (402, "billing_error", "m", None, FailureClass.AUTH),
        (403, "permission_error", "m", None, FailureClass.AUTH),
        (404, "not_found_error", "model: x", None, FailureClass.MODEL_NOT_FOUND),
        (409, "conflict_error", "m", None, FailureClass.UNAVAILABLE),
        (413, "request_too_large", "m", None, FailureClass.CONTEXT_LENGTH),
        (429, "rate_limit_error", "m", None, FailureClass.RATE_LIMITED),
        (429, "rate_limit_error", "m", "enforced_spend_limit_reached", FailureClass.AUTH),
        (500, "api_error", "m", None, FailureClass.UNAVAILABLE),
        (504, "timeout_error", "m", None, FailureClass.TIMEOUT),
        (529, "overloaded_error", "m", None, FailureClass.OVERLOADED),
    ],
)
def test_an_error_has_its_class(status: int, type: str, message: str, code: str | None, kind: FailureClass) -> None:
    details = {} if code is None else {"details": {"error_code": code}}
    answer = {"type": "error", "error": {"type": type, "message": message, **details}}
    assert failure_of(status, {}, json.dumps(answer).encode(), now=0).kind is kind


def test_a_rate_limit_without_a_time_to_wait_ends_with_the_last_limit_reached() -> None:
    headers = {
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "1970-01-01T01:00:00Z",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "1970-01-01T00:00:30Z",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "soon",
    }
    assert failure_of(429, headers, b"", now=10).retry_after == 20
    assert failure_of(429, headers | {"retry-after": "7"}, b"", now=10).retry_after == 7
    assert failure_of(429, headers, b"", now=60).retry_after == 0
    assert failure_of(429, {}, b"", now=10).retry_after is None
