"""Requests of OpenAI's Responses API become chats, and chats are told as Responses, whole and streamed."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingress_kit import CALLS, PIECES, Event, chunk, chunks_of, events
from trunkline.errors import InvalidRequest, ProviderError, unavailable
from trunkline.gateway.reading import Target
from trunkline.gateway.responses_answer import Responses
from trunkline.gateway.responses_request import chat_request, read_responses

USAGE = {"Trunkline-Usage": '{"input_tokens":7,"cached_input_tokens":3,"output_tokens":2,"reasoning_tokens":1}'}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}


def voice(**fields: Any) -> Responses:
    return Responses(read_responses(json.dumps({"model": "m", "input": "hi", **fields}).encode()))


def asked(target: Target = Target(kind="openai"), **fields: Any) -> dict[str, Any]:  # noqa: B008
    request = read_responses(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    found: dict[str, Any] = json.loads(chat_request(request, target))
    return found


def response(finish: str = "stop", **said: Any) -> dict[str, Any]:
    choices = [{"message": {"role": "assistant", **said}, "finish_reason": finish}]
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    body = {"id": "chatcmpl-1", "created": 5, "model": "m-1", "choices": choices, "usage": usage}
    found: dict[str, Any] = json.loads(voice().whole(json.dumps(body).encode()))
    return found


def test_a_plain_request_keeps_what_it_says() -> None:
    made = asked(
        instructions="Be brief.",
        stream=True,
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"},
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        metadata={"thread_id": "t", "other": "x"},
        user="u",
        store=False,
        truncation="disabled",
        include=["reasoning.encrypted_content"],
        route={"optimize": "cost"},
    )
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert made == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "verbosity": "low",
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "metadata": {"thread_id": "t"},
        "user": "u",
        "route": {"optimize": "cost"},
    }


def test_items_of_one_turn_become_one_message() -> None:
    items = [
        {"role": "developer", "content": "rules"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I'll look", "annotations": []}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {
            "type": "function_call_output",
            "call_id": "b",
            "output": [
                {"type": "input_text", "text": "2"},
                {"type": "input_image", "image_url": "https://x.example/a"},
            ],
        },
        {"role": "user", "content": "so?"},
    ]
    made = asked(input=items)["messages"]
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/a"}}
    assert made == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "I'll look",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "user", "content": [picture]},
        {"role": "user", "content": "so?"},
    ]
    assert asked(Target(kind="ollama"), input=items)["messages"][2]["reasoning_content"] == "hm"
    assert asked(Target(kind="anthropic"), input=items)["messages"][4]["content"][1] == picture


def test_thinking_that_was_signed_goes_back_to_who_signed() -> None:
    details = [
        {"type": "reasoning.text", "text": "a", "signature": "s", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "xx", "format": "anthropic-claude-v1", "index": 1},
    ]
    made = response(content="hi", reasoning_content="a", reasoning_details=details)
    assert [item["type"] for item in made["output"]] == ["reasoning", "reasoning", "message"]
    back = asked(Target(kind="anthropic"), input=[*made["output"], {"role": "user", "content": "so?"}])["messages"]
    assert back[0] == {"role": "assistant", "content": "hi", "reasoning_details": details}
    assert asked(input=made["output"])["messages"] == [{"role": "assistant", "content": "hi"}]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_of_tools_stays(choice: str) -> None:
    assert asked(tools=[TOOL], tool_choice=choice)["tool_choice"] == choice
    assert "tool_choice" not in asked(tool_choice=choice)


def test_a_format_of_text_asks_for_nothing_and_json_objects_stay() -> None:
    assert "response_format" not in asked(text={"format": {"type": "text"}})
    assert asked(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    files = [{"type": "input_file", "file_data": "data:application/pdf;base64,cGRm", "filename": "t.pdf"}]
    (message,) = asked(input=[{"role": "user", "content": files}])["messages"]
    file = {"file_data": "data:application/pdf;base64,cGRm", "filename": "t.pdf"}
    assert message["content"] == [{"type": "file", "file": file}]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["file_search_call.results"]}, "file_search_call.results"),
        ({"moderation": {}}, "moderation"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [{"type": "function"}]}, "name"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "computer_call"}]}, "computer_call"),
        ({"input": [{"role": "robot", "content": ""}]}, "input[0].role"),
        ({"input": [{"type": "function_call"}]}, "call_id"),
        ({"input": [{"type": "function_call_output", "output": ""}]}, "call_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, "input_image"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        asked(**fields)
    assert named in error.value.message
    assert error.value.status == 400


def test_an_answer_has_its_items_in_order() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    made = response(content="hi", reasoning_content="hm", tool_calls=[call], finish="tool_calls")
    thought, said, called = made["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert said["content"] == [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]
    assert (called["call_id"], called["name"], called["arguments"]) == ("c", "f", '{"x":1}')
    assert len({item["id"] for item in made["output"]}) == 3
    assert (made["id"], made["model"], made["created_at"], made["status"]) == ("resp_1", "m-1", 5, "completed")
    assert made["usage"]["input_tokens_details"]["cached_tokens"] == 4


def test_a_limit_cuts_the_last_item_and_a_refusal_is_content() -> None:
    made = response(finish="length", content="hi", reasoning_content="hm")
    assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert made["output"][1]["status"] == "incomplete"
    refused = response(content=None, refusal="I won't.")
    assert refused["output"][0]["content"] == [{"type": "refusal", "refusal": "I won't."}]


def test_a_response_repeats_what_was_asked() -> None:
    begun = voice(tools=[TOOL], tool_choice="required", text={"verbosity": "low"}, metadata={"a": "b"})
    created = events(begun.chunk(chunk({"content": "hi"})))[0]["response"]
    assert (created["tools"], created["tool_choice"]) == ([TOOL], "required")
    assert (created["text"], created["metadata"]) == ({"format": {"type": "text"}, "verbosity": "low"}, {"a": "b"})
    assert created["store"] is False


def test_what_is_no_chat_completion_is_an_error_of_the_provider() -> None:
    for body in (b"{", b"[]", b'{"choices":[]}', b'{"choices":[{}]}'):
        with pytest.raises(ProviderError):
            voice().whole(body)


def _follows(found: list[Event]) -> list[dict[str, Any]]:
    """The items of a stream; checks its order, and that what was told in pieces is told whole."""
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    done: list[dict[str, Any]] = []
    pieces = ""
    for event in found[2:-1]:
        name = event["type"].removeprefix("response.")
        assert event["output_index"] == len(done)
        if name == "output_item.added":
            pieces = ""
        elif name.endswith(".delta"):
            pieces += event["delta"]
        elif name.endswith("_text.done"):
            assert event["text"] == pieces
        elif name == "refusal.done":
            assert event["refusal"] == pieces
        elif name == "function_call_arguments.done":
            assert event["arguments"] == (pieces or "{}")
        elif name == "output_item.done":
            done.append(event["item"])
    return done


@given(pieces=PIECES, calls=CALLS, data=st.data())
@settings(deadline=None)
def test_whatever_comes_the_events_join_to_the_same(pieces: Any, calls: Any, data: st.DataObject) -> None:
    told = voice()
    found = events(b"".join(told.chunk(one) for one in chunks_of(pieces, calls, data)) + told.end(USAGE))
    items = _follows(found)
    last = found[-1]
    assert (last["type"], last["response"]["output"]) == ("response.completed", items)
    texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    thoughts = [part["text"] for item in items if item["type"] == "reasoning" for part in item["summary"]]
    assert "".join(texts) == "".join(text for name, text in pieces if name == "content")
    assert "".join(thoughts) == "".join(text for name, text in pieces if name == "reasoning_content")
    used = [(i["call_id"], i["name"], json.loads(i["arguments"])) for i in items if i["type"] == "function_call"]
    assert sorted(used, key=str) == sorted(((c.id, c.name, json.loads(c.text)) for c in calls), key=str)


def test_a_stream_that_a_limit_cut_is_incomplete() -> None:
    told = voice()
    out = told.chunk(chunk({"content": "hi"})) + told.chunk(chunk({"refusal": "no"}, "length")) + told.end(USAGE)
    found = events(out)
    assert [item["status"] for item in _follows(found)] == ["completed", "incomplete"]
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }


def test_a_stream_that_fails_says_so_twice_and_numbers_go_on() -> None:
    told = voice()
    found = events(told.chunk(chunk({"content": "hi"})) + told.failure(unavailable("gone")))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    failed, error = found[-2:]
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "gone"}
    assert failed["response"]["output"][0]["content"][0]["text"] == "hi"
    assert (error["type"], error["message"], error["error"]["code"]) == ("error", "gone", "unavailable")
    assert [event["type"] for event in events(voice().failure(unavailable("gone")))] == ["error"]


def test_a_stream_without_a_chunk_is_a_response_all_the_same() -> None:
    found = events(voice().end({}))
    assert [event["type"] for event in found] == ["response.created", "response.in_progress", "response.completed"]
    assert voice().alive().startswith(b":")
