"""Gemini's answers, streams and errors as OpenAI's clients read them."""

import base64
import json
import struct
from typing import Any

import pytest
from trunkline_actors.adapters import Chunk, End
from trunkline_actors.adapters.gemini_answer import Made, StreamReader, read_completion, read_embeddings
from trunkline_actors.adapters.gemini_faults import failure_of
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

MADE = Made(ident="abc", now=1795262400, model="asked")


def event(*parts: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": index}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "responseId": "r", **more}


def read(*events: Any, candidates: int = 1, usage: bool = False) -> tuple[list[Any], End]:
    reader = StreamReader(MADE, candidates=candidates, include_usage=usage)
    data = b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in events)
    chunks: list[Chunk] = [*reader.feed(data), *reader.finish()]
    return [json.loads(chunk.data) for chunk in chunks], reader.end()


def failed(*events: Any, whole: bool = False, candidates: int = 1) -> FailureClass:
    with pytest.raises(UpstreamError) as caught:
        _ = read_completion(json.dumps(events[0]).encode(), MADE) if whole else read(*events, candidates=candidates)
    return caught.value.failure.kind


def whole(answer: Any) -> Any:
    return json.loads(read_completion(json.dumps(answer).encode(), MADE).body)


def test_embeddings_asked_for_as_base64_are_little_endian_floats() -> None:
    answer = read_embeddings(b'{"embeddings": [{"values": [1, 0.5]}]}', "e", as_base64=True)
    vector = json.loads(answer.body)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(vector)) == (1.0, 0.5)


def test_calls_without_ids_get_ids_that_differ_in_a_stream_too() -> None:
    call = {"functionCall": {"name": "f", "args": {"a": [1]}}}
    chunks, end = read(event(call, call), event(call, finish="STOP"))
    calls = [one for chunk in chunks for one in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(c["index"], c["id"]) for c in calls] == [(0, "call_abc_0"), (1, "call_abc_1"), (2, "call_abc_2")]
    assert {c["function"]["arguments"] for c in calls} == {'{"a": [1]}'}
    assert end.finish == "tool_calls"


def test_a_signature_of_text_reaches_the_caller_of_a_stream() -> None:
    chunks, _ = read(event({"text": "a"}), event({"text": "", "thoughtSignature": "s=="}, finish="STOP"))
    assert chunks[1]["choices"][0]["delta"] == {"extra_content": {"google": {"thought_signature": "s=="}}}


def test_several_candidates_are_several_choices_and_all_must_finish() -> None:
    both = {"candidates": [event({"text": t}, index=i)["candidates"][0] for i, t in enumerate("ab")]}
    chunks, end = read(both, event(finish="STOP"), event(finish="MAX_TOKENS", index=1), candidates=2)
    assert [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in chunks] == [
        (0, None),
        (1, None),
        (0, "stop"),
        (1, "length"),
    ]
    assert end.finish == "stop"
    assert failed(both, event(finish="STOP"), candidates=2) is FailureClass.CONNECTION


def test_usage_counts_thoughts_as_output_and_what_tools_read_as_input() -> None:
    usage = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 8,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 20,
    }
    chunks, end = read(event({"text": "a"}, finish="STOP", usageMetadata=usage), usage=True)
    assert end.usage == Usage(input_tokens=15, cached_input_tokens=8, output_tokens=23, reasoning_tokens=20)
    assert chunks[-1]["usage"]["total_tokens"] == 38
    assert read(event(finish="STOP", usageMetadata={"promptTokenCount": "many"}))[1].usage is None


FILTERED = ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"]


@pytest.mark.parametrize("reason", FILTERED)
def test_a_filter_before_any_text_is_a_failure_and_after_it_a_finish_reason(reason: str) -> None:
    nothing, something = {"candidates": [{"finishReason": reason}]}, event({"text": "a"}, finish=reason)
    assert failed(nothing) is failed(nothing, whole=True) is FailureClass.CONTENT_FILTER
    assert read(something)[1].finish == whole(something)["choices"][0]["finish_reason"] == "content_filter"
    assert read(nothing, event({"text": "b"}, index=1, finish="STOP"), candidates=2)[1].finish == "content_filter"


def test_a_blocked_prompt_is_a_failure_of_the_filter() -> None:
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}}
    assert failed(blocked) is failed(blocked, whole=True) is FailureClass.CONTENT_FILTER


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("MALFORMED_FUNCTION_CALL", FailureClass.INTERNAL),
        ("UNEXPECTED_TOOL_CALL", FailureClass.INTERNAL),
        ("MISSING_THOUGHT_SIGNATURE", FailureClass.INVALID_REQUEST),
        ("PUP_LIMITED_DISABLED", FailureClass.AUTH),
    ],
)
def test_some_finish_reasons_are_failures_after_text_too(reason: str, kind: FailureClass) -> None:
    answer = event({"text": "a"}, finish=reason)
    assert failed(answer) is failed(answer, whole=True) is kind


@pytest.mark.parametrize(("reason", "finish"), [("STOP", "stop"), ("OTHER", "stop"), ("SOME_DAY", "stop")])
def test_a_reason_unheard_of_ends_what_was_said_and_fails_where_nothing_was(reason: str, finish: str) -> None:
    assert read(event({"text": "a"}, finish=reason))[1].finish == finish
    if reason != "STOP":
        assert failed({"candidates": [{"finishReason": reason}]}) is FailureClass.INTERNAL


def test_an_image_that_was_generated_is_an_image_of_the_message() -> None:
    answer = event({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, finish="STOP")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert whole(answer)["choices"][0]["message"]["images"] == [image]


# -- errors


def error(status: str, code: int = 400, *details: object) -> bytes:
    return json.dumps({"error": {"code": code, "status": status, "message": "m", "details": details}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, error("RESOURCE_EXHAUSTED", 429), FailureClass.RATE_LIMITED),
        (503, error("UNAVAILABLE", 503), FailureClass.UNAVAILABLE),
        (500, error("INTERNAL", 500), FailureClass.UNAVAILABLE),
        (504, error("DEADLINE_EXCEEDED", 504), FailureClass.TIMEOUT),
        (403, error("PERMISSION_DENIED", 403), FailureClass.AUTH),
        (401, error("UNAUTHENTICATED", 401), FailureClass.AUTH),
        (400, error("FAILED_PRECONDITION"), FailureClass.AUTH),
        (400, error("INVALID_ARGUMENT"), FailureClass.INVALID_REQUEST),
        (400, error("INVALID_ARGUMENT", 400, {"reason": "API_KEY_INVALID"}), FailureClass.AUTH),
        (400, b"[" + error("INVALID_ARGUMENT", 400, {"reason": "API_KEY_INVALID"}) + b"]", FailureClass.AUTH),
        (404, error("NOT_FOUND", 404), FailureClass.MODEL_NOT_FOUND),
        (413, error("INVALID_ARGUMENT", 413), FailureClass.CONTEXT_LENGTH),
        (200, error("UNAVAILABLE", 503), FailureClass.UNAVAILABLE),
        (502, b"<html>", FailureClass.UNAVAILABLE),
        (429, b'{"error": {"message": "slow", "type": "rate_limit_error"}}', FailureClass.RATE_LIMITED),
    ],
)
def test_an_error_has_the_class_of_its_status_or_its_reason(status: int, body: bytes, kind: FailureClass) -> None:
    assert failure_of(status, {}, body, now=0.0).kind is kind


@pytest.mark.parametrize(("delay", "seconds"), [("34.4s", 34.4), ("7s", 7.0), ("soon", None), (7, None), ("-1s", None)])
def test_how_long_to_wait_is_in_the_details(delay: object, seconds: float | None) -> None:
    body = error("RESOURCE_EXHAUSTED", 429, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    assert failure_of(429, {}, body, now=0.0).retry_after == seconds
    assert failure_of(429, {"retry-after": "3"}, error("RESOURCE_EXHAUSTED", 429), now=0.0).retry_after == 3.0
