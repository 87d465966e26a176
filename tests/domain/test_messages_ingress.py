"""Requests of Anthropic's Messages API become chats."""

import json
from typing import Any

import pytest
from trunkline.errors import InvalidRequest
from trunkline.gateway.messages_request import chat_request, read_messages
from trunkline.gateway.reading import Target

HI = {"role": "user", "content": "hi"}
ANTHROPIC = Target(kind="anthropic", thinks=True)


def asked(target: Target = Target(kind="openai"), **fields: Any) -> dict[str, Any]:  # noqa: B008
    request = read_messages(json.dumps({"model": "m", "max_tokens": 100, "messages": [HI], **fields}).encode())
    found: dict[str, Any] = json.loads(chat_request(request, target))
    return found


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as error:
        asked(**fields)
    assert error.value.status == 400
    return error.value.message


def test_a_plain_request_keeps_what_it_says() -> None:
    made = asked(
        system="Be brief.",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        stream=True,
        metadata={"user_id": "u", "thread_id": "t"},
        route={"optimize": "cost"},
    )
    assert made == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, HI],
        "max_tokens": 100,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "user": "u",
        "metadata": {"thread_id": "t"},
        "route": {"optimize": "cost"},
    }


def test_results_of_tools_come_before_what_the_user_says() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    turns = [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": [1, 2]}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "ok"}, image]},
                {"type": "tool_result", "tool_use_id": "b", "content": "broken", "is_error": True},
                {"type": "text", "text": "so?"},
            ],
        },
    ]
    called, *rest = asked(messages=turns)["messages"]
    (call,) = called["tool_calls"]
    assert (called["content"], call["id"], call["function"]["name"]) == (None, "a", "f")
    assert json.loads(call["function"]["arguments"]) == {"x": [1, 2]}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert rest == [
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: broken"},
        {"role": "user", "content": [picture, {"type": "text", "text": "so?"}]},
    ]
    at_anthropic = asked(ANTHROPIC, messages=turns)["messages"][1]
    assert at_anthropic["content"] == [{"type": "text", "text": "ok"}, picture]


def test_documents_are_text_or_files() -> None:
    content = [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        {
            "type": "document",
            "title": "t.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "cGRm"},
        },
        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
    ]
    assert asked(messages=[{"role": "user", "content": content}])["messages"][0]["content"] == [
        {"type": "text", "text": "words"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,cGRm", "filename": "t.pdf"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
    ]


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_a_choice_of_tools_keeps_its_meaning(choice: dict[str, Any], made: Any) -> None:
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}, "type": "custom"}
    body = asked(tools=[tool], tool_choice={**choice, "disable_parallel_tool_use": True})
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (made, False)


def test_a_thinking_budget_is_exact_at_anthropic_and_an_effort_elsewhere() -> None:
    budget = {"type": "enabled", "budget_tokens": 45}
    assert asked(ANTHROPIC, thinking=budget)["thinking"] == budget
    assert asked(thinking=budget)["reasoning_effort"] == "medium"
    assert asked(thinking={"type": "enabled", "budget_tokens": 10})["reasoning_effort"] == "low"
    assert asked(thinking={"type": "enabled", "budget_tokens": 99})["reasoning_effort"] == "high"
    assert asked(thinking={"type": "enabled", "budget_tokens": 999})["reasoning_effort"] == "high"
    assert asked(thinking={"type": "adaptive"})["reasoning_effort"] == "medium"
    assert asked(thinking={"type": "adaptive"}, output_config={"effort": "max"})["reasoning_effort"] == "max"
    assert asked(output_config={"effort": "low"})["reasoning_effort"] == "low"
    assert asked(Target(kind="ollama", thinks=True), thinking={"type": "disabled"})["reasoning_effort"] == "none"
    assert "reasoning_effort" not in asked(thinking={"type": "disabled"})
    assert "thinking" in refused(thinking={"type": "deep"})
    assert "budget_tokens" in refused(thinking={"type": "enabled"})


def test_thinking_goes_back_to_who_wants_it() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "text", "text": "so"},
    ]
    turns = [HI, {"role": "assistant", "content": blocks}, HI]
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": "sig", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "xx", "format": "anthropic-claude-v1", "index": 1},
    ]
    spoken = {"role": "assistant", "content": "so"}
    assert asked(ANTHROPIC, messages=turns)["messages"][1] == {**spoken, "reasoning_details": details}
    assert asked(Target(), messages=turns)["messages"][1] == {**spoken, "reasoning_details": details}
    assert asked(messages=turns)["messages"][1] == spoken
    assert asked(Target(kind="deepseek"), messages=turns)["messages"][1] == {**spoken, "reasoning_content": "hm"}


def test_marks_for_the_cache_go_to_anthropic_alone() -> None:
    mark = {"type": "ephemeral"}
    system = [{"type": "text", "text": "a", "cache_control": mark}]
    tool = {"name": "f", "input_schema": {}, "cache_control": mark}
    fields: dict[str, Any] = {"system": system, "tools": [tool], "cache_control": mark}
    made = asked(ANTHROPIC, **fields)
    assert made["messages"][0]["content"] == [{"type": "text", "text": "a", "cache_control": mark}]
    assert made["tools"][0]["cache_control"] == made["cache_control"] == mark
    assert "cache_control" not in json.dumps(asked(**fields))


def test_a_schema_and_a_tier_keep_their_meaning() -> None:
    schema = {"type": "object"}
    made = asked(output_config={"format": {"type": "json_schema", "schema": schema}}, service_tier="standard_only")
    assert made["response_format"]["json_schema"]["schema"] == schema
    assert made["service_tier"] == "default"
    assert "service_tier" not in asked(service_tier="auto")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"container": "c"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"context_management": {}}, "context_management"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"max_tokens": None}, "max_tokens"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [{"name": "f"}]}, "input_schema"),
        ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool"}}, "name"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "search_result"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]}, "source"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "document"),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]}, "server_tool_use"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, "tool_use"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    assert named in refused(**fields)
