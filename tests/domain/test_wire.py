"""The OpenAI wire: what is sent on, and what is read from answers, without a network."""

import json
from typing import Any

import pytest
from msgspec import Raw
from trunkline_actors.adapters import Call, Chunk, End
from trunkline_actors.adapters.dialect import DEEPSEEK, OPENAI, OPENROUTER, PLAIN, Dialect
from trunkline_actors.adapters.wire import (
    StreamReader,
    chat_body,
    embeddings_body,
    read_charge,
    read_completion,
    read_embeddings,
    read_usage,
)
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage


def sent(body: object, *, stream: bool = False, max_tokens: int | None = None, dialect: Dialect = PLAIN) -> Any:
    call = Call(body=json.dumps(body).encode(), model="theirs", max_tokens=max_tokens)
    return json.loads(chat_body(call, stream=stream, dialect=dialect))


def test_the_model_is_replaced_and_unknown_fields_pass_untouched() -> None:
    body = b'{"model": "ours", "temperature": 0.10, "x": {"deep": [1e400, 12345678901234567890]}}'
    got = chat_body(Call(body=body, model="theirs"), stream=False)
    assert got == b'{"model":"theirs","temperature":0.10,"x":{"deep": [1e400, 12345678901234567890]}}'


def test_our_own_extensions_are_dropped() -> None:
    assert sent({"route": {"prefer": ["m"]}, "metadata": {"thread_id": "t"}}) == {"model": "theirs"}
    assert sent({"metadata": {"thread_id": "t", "theirs": 1}})["metadata"] == {"theirs": 1}
    assert sent({"metadata": {"theirs": 1}})["metadata"] == {"theirs": 1}
    assert sent({"metadata": "odd"})["metadata"] == "odd"


def test_a_stream_always_asks_for_usage() -> None:
    assert sent({}, stream=True) == {"model": "theirs", "stream": True, "stream_options": {"include_usage": True}}
    options = sent({"stream_options": {"include_usage": False, "x": 1}}, stream=True)["stream_options"]
    assert options == {"include_usage": True, "x": 1}
    assert sent({"stream_options": None}, stream=True)["stream_options"] == {"include_usage": True}


def test_a_whole_answer_asks_for_no_stream() -> None:
    assert sent({"stream": True, "stream_options": {"include_usage": True}}) == {"model": "theirs"}


@pytest.mark.parametrize(
    ("asked", "limited"),
    [
        ({}, {"max_tokens": 7}),
        ({"max_tokens": 100}, {"max_tokens": 7}),
        ({"max_completion_tokens": 100}, {"max_completion_tokens": 7}),
    ],
)
def test_a_clamp_replaces_the_limit_under_the_name_the_caller_used(
    asked: dict[str, int], limited: dict[str, int]
) -> None:
    assert sent(asked, max_tokens=7) == {**limited, "model": "theirs"}
    assert sent(asked) == {**asked, "model": "theirs"}


def test_a_limit_under_both_names_is_sent_under_one() -> None:
    assert sent({"max_completion_tokens": 9, "max_tokens": 9}, max_tokens=7) == {"model": "theirs", "max_tokens": 7}
    assert sent({"max_completion_tokens": None}, max_tokens=7) == {"model": "theirs", "max_tokens": 7}


def test_a_limit_of_our_own_goes_where_the_provider_wants_it() -> None:
    assert sent({}, max_tokens=7, dialect=OPENAI)["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("dialect", "asked", "limited"),
    [
        (OPENAI, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        (OPENAI, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (DEEPSEEK, {"max_completion_tokens": 9}, {"max_tokens": 9}),
        (DEEPSEEK, {"max_completion_tokens": 9, "max_tokens": 8}, {"max_tokens": 8}),
        (PLAIN, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (PLAIN, {"max_completion_tokens": 9, "max_tokens": None}, {"max_completion_tokens": 9}),
    ],
)
def test_a_limit_has_the_name_that_the_upstream_knows(dialect: Dialect, asked: Any, limited: Any) -> None:
    assert sent(asked, dialect=dialect) == {**limited, "model": "theirs"}


def test_an_embeddings_request_keeps_all_but_ours() -> None:
    call = Call(body=b'{"model":"m","input":["a"],"route":{},"dimensions":3}', model="theirs", max_tokens=5)
    assert json.loads(embeddings_body(call)) == {"model": "theirs", "input": ["a"], "dimensions": 3}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b'{"a":' + b"[" * 100_000], ids=range(5))
def test_a_body_that_is_no_object_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        chat_body(Call(body=body, model="m"), stream=False)
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}, Usage(input_tokens=12, output_tokens=5)),
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 9,
                "total_tokens": 21,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(input_tokens=12, cached_input_tokens=8, output_tokens=9, reasoning_tokens=4),
        ),
        (  # DeepSeek
            {"prompt_tokens": 12, "completion_tokens": 9, "prompt_cache_hit_tokens": 3},
            Usage(input_tokens=12, cached_input_tokens=3, output_tokens=9),
        ),
        (  # xAI: thinking beside the completion
            {
                "prompt_tokens": 12,
                "completion_tokens": 100,
                "total_tokens": 142,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(input_tokens=12, output_tokens=130, reasoning_tokens=30),
        ),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(input_tokens=3)),
        (None, None),
        ({"prompt_tokens": -3}, None),
        ({"prompt_tokens": "many"}, None),
        ([], None),
    ],
)
def test_usage_is_read_in_every_providers_shape(wire: object, usage: Usage | None) -> None:
    assert read_usage(Raw(json.dumps(wire).encode())) == usage


def completion(message: dict[str, object], **rest: object) -> bytes:
    return json.dumps({"id": "1", "choices": [{"message": message, "finish_reason": "stop"}], **rest}).encode()


def test_a_completion_passes_byte_for_byte() -> None:
    body = completion({"content": "hi", "reasoning": None}, usage={"prompt_tokens": 1, "completion_tokens": 2})
    answer = read_completion(body)
    assert (answer.body, answer.finish) == (body, "stop")
    assert answer.usage == Usage(input_tokens=1, output_tokens=2)


def test_foreign_reasoning_gets_its_common_name() -> None:
    message = json.loads(read_completion(completion({"content": "x", "reasoning": "hm"})).body)["choices"][0]["message"]
    assert message == {"content": "x", "reasoning_content": "hm"}
    both = completion({"reasoning": "hm", "reasoning_content": "hm"})
    assert read_completion(both).body == both


def test_a_completion_without_finish_reason_stopped() -> None:
    assert read_completion(b'{"choices": [{"message": {"content": "x"}}]}').finish == "stop"


ODD_ANSWERS = {
    b"<html>Sign in</html>": (FailureClass.INTERNAL, "upstream sent no"),
    b"": (FailureClass.INTERNAL, "upstream sent no"),
    b'{"choices": null, "data": null}': (FailureClass.INTERNAL, "upstream sent no"),
    b'{"choices": null, "error": {"code": "rate_limit_exceeded"}}': (FailureClass.RATE_LIMITED, "upstream answered"),
    b'{"error": "boom"}': (FailureClass.INTERNAL, "upstream answered"),
}


@pytest.mark.parametrize("body", ODD_ANSWERS)
def test_an_odd_answer_with_status_200_is_a_failure(body: bytes) -> None:
    kind, message = ODD_ANSWERS[body]
    for read in (read_completion, read_embeddings):
        with pytest.raises(UpstreamError, match=message) as caught:
            read(body)
        assert (caught.value.failure.kind, caught.value.failure.status) == (kind, 200)


def test_embeddings_are_read() -> None:
    body = b'{"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}'
    answer = read_embeddings(body)
    assert (answer.body, answer.usage, answer.finish) == (body, Usage(input_tokens=4), "stop")


def chunk(delta: dict[str, object] | None = None, finish: str | None = None, **rest: object) -> dict[str, object]:
    return {"id": "1", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **rest}


def read(*payloads: object, include_usage: bool = False) -> tuple[list[Chunk], End | Failure]:
    reader = StreamReader(include_usage=include_usage)
    chunks: list[Chunk] = []
    try:
        for payload in payloads:
            data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            chunks.extend(reader.feed(b"data: " + data + b"\n\n"))
        chunks.extend(reader.finish())
        return chunks, reader.end()
    except UpstreamError as error:
        return chunks, error.failure


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def test_chunks_pass_byte_for_byte_and_their_text_is_counted() -> None:
    deltas: list[tuple[dict[str, object], int]] = [
        ({"role": "assistant", "content": ""}, 0),
        ({"content": "café ☃"}, 9),
        ({"content": None, "reasoning_content": "hm", "reasoning": None}, 2),
        ({"refusal": "no"}, 2),
        ({"tool_calls": [{"index": 0, "id": "c"}, {"function": {"name": "f", "arguments": '{"a":1}'}}]}, 7),
        ({"content": [{"type": "text"}]}, 16),
    ]
    chunks, end = read(*[chunk(delta) for delta, _ in deltas], chunk(finish="length"), b"[DONE]")
    assert [json.loads(c.data) for c in chunks[:-1]] == [chunk(delta) for delta, _ in deltas]
    assert [c.text_bytes for c in chunks[:-1]] == [size for _, size in deltas]
    assert end == End(usage=None, finish="length")


def test_foreign_reasoning_is_renamed_in_a_chunk_and_counted() -> None:
    (first, *_), _ = read(chunk({"reasoning": "häm"}, x=1), chunk(finish="stop"))
    assert json.loads(first.data) == chunk({"reasoning_content": "häm"}, x=1)
    assert first.text_bytes == 4


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_usage_chunk_is_given_only_to_who_asked(include_usage: bool) -> None:
    payloads = (chunk({"content": "x"}), chunk(finish="stop"), {"choices": [], "usage": USAGE}, b"[DONE]")
    chunks, end = read(*payloads, include_usage=include_usage)
    assert len(chunks) == (3 if include_usage else 2)
    assert end == End(usage=Usage(input_tokens=1, output_tokens=2), finish="stop")


def test_usage_beside_choices_counts_too() -> None:
    chunks, end = read(chunk(finish="stop", usage=USAGE), b"[DONE]")
    assert (len(chunks), end) == (1, End(usage=Usage(input_tokens=1, output_tokens=2), finish="stop"))


def test_nothing_is_read_after_done() -> None:
    reader = StreamReader(include_usage=True)
    assert list(reader.feed(b"data: [DONE]\n\ndata: nonsense\n\n")) == []
    assert (reader.done, reader.end().finish) == (True, "stop")


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"{nonsense", FailureClass.INTERNAL),
        (b'{"choices": "x"}', FailureClass.INTERNAL),
        ({"choices": None}, FailureClass.INTERNAL),
        ({"error": {"code": "502", "message": "bad gateway"}}, FailureClass.UNAVAILABLE),
        (chunk(finish="error", error={"code": 429, "message": "slow"}), FailureClass.RATE_LIMITED),
        ({"object": "error", "code": 400, "message": "bad"}, FailureClass.INVALID_REQUEST),
        (b'{"choices": [], "x": "' + b"\xff" + b'"', FailureClass.INTERNAL),
    ],
)
def test_a_bad_event_fails_the_stream_after_the_chunks_before_it(payload: object, kind: FailureClass) -> None:
    chunks, failure = read(chunk({"content": "x"}), payload, chunk(finish="stop"))
    assert len(chunks) == 1
    assert isinstance(failure, Failure)
    assert failure.kind is kind


def test_a_stream_that_just_ends_was_cut() -> None:
    chunks, failure = read(chunk({"content": "x"}))
    assert len(chunks) == 1
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message[:19]) == (FailureClass.CONNECTION, "upstream cut the st")


def test_a_stream_without_events_is_no_stream() -> None:
    _, failure = read()
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (FailureClass.INTERNAL, "upstream sent no event stream")


def test_an_event_without_end_fails_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline_actors.adapters.sse._EVENT_LIMIT", 10)
    with pytest.raises(UpstreamError, match="more than 10 bytes"):
        list(StreamReader(include_usage=True).feed(b"data: 0123456789abc"))


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        (b'{"cost": 0.00014}', 140_000),
        (b'{"cost": 1.4e-4, "is_byok": false}', 140_000),
        (b'{"cost": 0}', 0),
        (b'{"cost": 0.0000000001}', 1),
        (b'{"cost": 0.00001, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.0002}}', 210_000),
        (b'{"cost": 0.00001, "is_byok": true, "cost_details": {"upstream_inference_cost": null}}', 10_000),
        (b'{"prompt_tokens": 1}', None),
        (b'{"cost": null}', None),
        (b'{"cost": -1}', None),
        (b'{"cost": 1e300}', None),
        (b'{"cost": "free"}', None),
        (b"null", None),
        (b"", None),
    ],
)
def test_what_openrouter_charged_is_read_to_the_nano_dollar(usage: bytes, charged: int | None) -> None:
    assert read_charge(Raw(usage)) == charged


def test_what_was_charged_is_told_by_who_tells_it() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.25}
    whole = json.dumps({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}).encode()
    stream = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"
    for dialect, charged in ((OPENROUTER, 250_000_000), (PLAIN, None)):
        assert read_completion(whole, dialect=dialect).charged_nanos == charged
        reader = StreamReader(include_usage=False, dialect=dialect)
        assert list(reader.feed(stream)) == []
        assert reader.end().charged_nanos == charged
