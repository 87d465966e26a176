"""Chats are told as Anthropic's Messages, whole and streamed."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingress_kit import CALLS, PIECES, Event, chunk, chunks_of, events
from trunkline.errors import ProviderError
from trunkline.gateway.messages_answer import Messages, message_of

USAGE = {"Trunkline-Usage": '{"input_tokens":7,"cached_input_tokens":3,"output_tokens":2,"reasoning_tokens":1}'}


def message(**said: Any) -> dict[str, Any]:
    finish = said.pop("finish", "stop")
    usage = said.pop("usage", None)
    body = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"message": {"role": "assistant", **said}, "finish_reason": finish}],
        "usage": usage,
    }
    found: dict[str, Any] = json.loads(message_of(json.dumps(body).encode()))
    return found


def test_an_answer_has_its_blocks_in_order() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    made = message(content="hi", reasoning_content="hm", tool_calls=[call], finish="tool_calls", usage=usage)
    assert made["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "hi"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
    ]
    assert (made["id"], made["type"], made["stop_reason"]) == ("msg_1", "message", "tool_use")
    assert made["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 3,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 1},
    }


def test_signed_thinking_stands_where_it_stood() -> None:
    details = [
        {"type": "reasoning.text", "text": "b", "signature": "s2", "format": "anthropic-claude-v1", "index": 2},
        {"type": "reasoning.text", "text": "a", "signature": "s1", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": "x", "signature": "s0", "format": "google-gemini-v1", "index": 0},
    ]
    made = message(content="hi", reasoning_content="ab", reasoning_details=details)
    assert [(block["type"], block.get("signature")) for block in made["content"]] == [
        ("thinking", "s1"),
        ("text", None),
        ("thinking", "s2"),
    ]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("whatever", "end_turn")],
)
def test_the_reason_to_stop_is_anthropics(finish: str, reason: str) -> None:
    assert message(content="hi", finish=finish)["stop_reason"] == reason


def test_texts_in_parts_are_one_text() -> None:
    parts = [{"type": "thinking", "thinking": [{}]}, {"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    assert message(content=parts)["content"] == [{"type": "text", "text": "hi"}]


def test_a_refusal_is_a_reason_to_stop() -> None:
    made = message(content=None, refusal="I won't.")
    assert (made["content"], made["stop_reason"]) == ([], "refusal")
    assert made["stop_details"]["explanation"] == "I won't."


def test_a_call_said_to_have_stopped_is_a_use_of_a_tool_and_broken_arguments_are_shown() -> None:
    calls = [{"id": str(n), "function": {"name": "f", "arguments": text}} for n, text in enumerate(("", '{"x', "[1]"))]
    made = message(content=None, tool_calls=calls)
    assert made["stop_reason"] == "tool_use"
    assert [block["input"] for block in made["content"]] == [
        {},
        {"unparsed_arguments": '{"x'},
        {"unparsed_arguments": "[1]"},
    ]


def test_what_is_no_chat_completion_is_an_error_of_the_provider() -> None:
    for body in (b"{", b"[]", b'{"choices":[]}', b'{"choices":[{}]}'):
        with pytest.raises(ProviderError):
            message_of(body)
    with pytest.raises(ProviderError):
        Messages().chunk(b"{")


# -- streams -------------------------------------------------------------------------------------------------------


def told(chunks: list[bytes]) -> list[Event]:
    voice = Messages()
    out = b"".join(voice.chunk(data) for data in chunks) + voice.end(USAGE)
    return events(out)


def joined(found: list[Event]) -> list[dict[str, Any]]:
    """The blocks that a client joins; checks the order that the API keeps."""
    assert found[0]["type"] == "message_start"
    assert [event["type"] for event in found[-2:]] == ["message_delta", "message_stop"]
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in found[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "json": ""})
            is_open = True
            continue
        assert is_open
        assert event["index"] == len(blocks) - 1
        if event["type"] == "content_block_stop":
            is_open = False
            continue
        delta = event["delta"]
        match delta["type"]:
            case "text_delta":
                blocks[-1]["text"] += delta["text"]
            case "thinking_delta":
                blocks[-1]["thinking"] += delta["thinking"]
            case "signature_delta":
                blocks[-1]["signature"] += delta["signature"]
            case "input_json_delta":
                blocks[-1]["json"] += delta["partial_json"]
    assert not is_open
    return blocks


@given(pieces=PIECES, calls=CALLS, data=st.data())
@settings(deadline=None)
def test_whatever_comes_the_events_join_to_the_same(pieces: Any, calls: Any, data: st.DataObject) -> None:
    blocks = joined(told(chunks_of(pieces, calls, data)))
    for kind, field in (("text", "content"), ("thinking", "reasoning_content")):
        said = "".join(text for name, text in pieces if name == field)
        assert "".join(block[kind] for block in blocks if block["type"] == kind) == said
    used = [(b["id"], b["name"], json.loads(b["json"] or "{}")) for b in blocks if b["type"] == "tool_use"]
    assert sorted(used, key=str) == sorted(((c.id, c.name, json.loads(c.text)) for c in calls), key=str)


def test_a_stream_ends_with_why_and_with_the_receipts_usage() -> None:
    found = told([chunk({"role": "assistant", "content": ""}), chunk({"content": "hi"}), chunk({}, "length")])
    delta, stop = found[-2:]
    assert delta["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert delta["usage"]["input_tokens"] == 4
    assert delta["usage"]["cache_read_input_tokens"] == 3
    assert stop == {"type": "message_stop"}


def test_a_streams_own_usage_knows_what_was_written_to_the_cache() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 4}}
    last = msgspec.json.encode({"id": "1", "model": "m", "choices": [], "usage": usage})
    found = told([chunk({"content": "hi"}), chunk({}, "stop"), last])
    assert (found[-2]["usage"]["input_tokens"], found[-2]["usage"]["cache_creation_input_tokens"]) == (5, 4)


def test_signatures_end_their_blocks_and_redacted_thinking_comes_whole() -> None:
    signed = {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    hidden = {"type": "reasoning.encrypted", "data": "xx", "format": "anthropic-claude-v1", "index": 1}
    silent = {**signed, "text": "", "signature": "t", "index": 2}
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"reasoning_details": [signed]},
        {"reasoning_details": [hidden]},
        {"reasoning_details": [silent]},
        {"content": "hi"},
    ]
    blocks = joined(told([chunk(delta) for delta in deltas]))
    assert [{k: v for k, v in block.items() if k != "json"} for block in blocks] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "thinking", "thinking": "", "signature": "t"},
        {"type": "text", "text": "hi"},
    ]


def test_silence_is_a_ping_once_the_message_began_and_a_comment_before() -> None:
    voice = Messages()
    assert voice.alive().startswith(b":")
    voice.chunk(chunk({"content": "hi"}))
    assert events(voice.alive()) == [{"type": "ping"}]


def test_a_refusal_in_a_stream_is_told_at_its_end() -> None:
    found = told([chunk({"refusal": "I "}), chunk({"refusal": "won't."}, "stop")])
    assert joined(found) == []
    assert found[-2]["delta"]["stop_reason"] == "refusal"
    assert found[-2]["delta"]["stop_details"]["explanation"] == "I won't."
