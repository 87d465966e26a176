"""Chat Completions as Anthropic's Messages: what each field becomes, and what is refused by its name."""

import json
from typing import Any

import pytest
from trunkline_actors.adapters import Call
from trunkline_actors.adapters.anthropic_request import messages_body, thinks_adaptively
from trunkline_events.failure import FailureClass, UpstreamError

HI = [{"role": "user", "content": "hi"}]
SONNET, OPUS = "claude-sonnet-4-5-20250929", "claude-opus-4-8"
TOOL = {"type": "function", "function": {"name": "now"}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


def body(*, model: str = SONNET, limit: int | None = None, **fields: object) -> dict[str, Any]:
    call = Call(body=json.dumps({"messages": HI, **fields}).encode(), model=model, max_tokens=limit)
    made: dict[str, Any] = json.loads(messages_body(call, stream=False))
    return made


def refusal(**fields: Any) -> str:
    with pytest.raises(UpstreamError) as caught:
        body(**fields)
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST
    return caught.value.failure.message


def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# -- requests


def test_the_limit_is_the_routers_else_the_callers_else_one_that_every_model_takes() -> None:
    assert body(limit=7, max_tokens=9)["max_tokens"] == 7
    assert body(max_completion_tokens=8, max_tokens=9)["max_tokens"] == 8
    assert body(max_tokens=9)["max_tokens"] == 9
    assert body()["max_tokens"] == 8192


def test_turns_of_one_role_become_one_and_system_messages_come_first() -> None:
    made = body(
        messages=[
            {"role": "system", "content": "a"},
            {"role": "user", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "c"}]},
            {"role": "developer", "content": [{"type": "text", "text": "d", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "e"},
        ]
    )
    assert made["system"] == [text("a"), {**text("d"), "cache_control": {"type": "ephemeral"}}]
    assert made["messages"] == [turn("user", text("b"), text("c"), text("e"))]


def test_results_of_parallel_tools_are_one_turn_of_the_users() -> None:
    calls = [
        {"id": i, "type": "function", "function": {"name": "now", "arguments": a}}
        for i, a in (("1", ""), ("2", '{"a":1.50}'))
    ]
    made = body(
        messages=[
            *HI,
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "y"}]},
            {"role": "user", "content": "and?"},
        ]
    )
    assert made["messages"][1:] == [
        turn(
            "assistant",
            {"type": "tool_use", "id": "1", "name": "now", "input": {}},
            {"type": "tool_use", "id": "2", "name": "now", "input": {"a": 1.5}},
        ),
        turn(
            "user",
            {"type": "tool_result", "tool_use_id": "1", "content": [text("x")]},
            {"type": "tool_result", "tool_use_id": "2", "content": [text("y")]},
            text("and?"),
        ),
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "now"}}, True, {"type": "tool", "name": "now"}),
    ],
)
def test_which_tool_is_called_is_the_callers_choice(choice: object, parallel: bool | None, expected: object) -> None:
    made = body(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)
    assert made.get("tool_choice") == expected
    assert made["tools"] == [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]


def test_a_document_goes_as_its_bytes() -> None:
    file = {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}
    made = body(messages=[{"role": "user", "content": [{"type": "file", "file": file}]}])
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    assert made["messages"] == [turn("user", {"type": "document", "source": source, "title": "a.pdf"})]


@pytest.mark.parametrize(
    ("effort", "model", "expected"),
    [
        ("none", OPUS, {"thinking": {"type": "disabled"}}),
        (
            "minimal",
            OPUS,
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        (
            "high",
            OPUS,
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
        ),
        ("low", SONNET, {"thinking": {"type": "enabled", "budget_tokens": 1638}}),
        ("minimal", SONNET, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("high", "tiny", {"thinking": {"type": "enabled", "budget_tokens": 6553}}),
    ],
)
def test_effort_becomes_a_budget_or_an_effort_as_the_model_has_it(
    effort: str, model: str, expected: dict[str, Any]
) -> None:
    made = body(reasoning_effort=effort, model=model)
    assert {name: made[name] for name in ("thinking", "output_config") if name in made} == expected


def test_a_budget_of_thinking_stays_below_the_limit() -> None:
    assert body(reasoning_effort="max", max_tokens=1025)["thinking"]["budget_tokens"] == 1024
    assert "max_tokens 1024" in refusal(reasoning_effort="low", max_tokens=1024)


def test_thinking_as_anthropic_has_it_is_sent_as_it_is() -> None:
    mine = {"type": "enabled", "budget_tokens": 3000, "display": "omitted"}
    assert body(thinking=mine, reasoning_effort="low", model=OPUS)["thinking"] == mine


@pytest.mark.parametrize(
    ("model", "adaptive"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-opus-4-20250514", False),
        ("claude-haiku-4-5-20251001", False),
        ("claude-opus-4-6", True),
        ("anthropic/claude-sonnet-4.6", True),
        ("us.anthropic.claude-opus-4-7-v1:0", True),
        ("claude-sonnet-5", True),
        ("claude-mythos-preview", True),
        ("qwen3", False),
    ],
)
def test_the_name_of_a_model_tells_how_it_thinks(model: str, adaptive: bool) -> None:
    assert thinks_adaptively(model) is adaptive


def test_thinking_that_others_signed_or_nobody_is_left_out() -> None:
    details = [
        {"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1", "index": 0},
        {"type": "reasoning.text", "text": "unsigned"},
        {"type": "reasoning.summary", "summary": "s"},
        {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "id": "r1"},
    ]
    said = {"role": "assistant", "content": "4", "reasoning_content": "Hm.", "reasoning_details": details}
    assert body(messages=[*HI, said])["messages"][1]["content"] == [THOUGHT, text("4")]


def test_defaults_that_newer_models_refuse_are_left_out() -> None:
    made = body(temperature=1.3, top_p=1)
    assert not {"temperature", "top_p"} & set(made)
    assert (body(temperature=0.0)["temperature"], body(top_p=0.5)["top_p"]) == (0.0, 0.5)


def test_what_asks_for_nothing_or_is_ours_is_left_out() -> None:
    idle: dict[str, Any] = {
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
    }
    ours: dict[str, Any] = {
        "route": {"attempts": 1},
        "metadata": {"a": "b"},
        "store": False,
        "seed": 7,
        "stream": True,
        "modalities": ["text"],
    }
    assert set(body(**idle, **ours, response_format={"type": "text"})) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 2}, "n = 2"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"functions": []}, "functions"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a"}}]}]},
            "image_url",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:a/b;base64,"}}]}]},
            "file",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[]"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    assert named in refusal(**fields)


@pytest.mark.parametrize("sent", [b"[]", b"{", b"", b"\xff", b'{"messages": 5}'])
def test_a_body_that_is_no_request_is_refused(sent: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        messages_body(Call(body=sent, model="m"), stream=True)
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST


def test_fields_with_a_counterpart_become_that() -> None:
    cached = {"type": "ephemeral"}
    tool = {"type": "function", "cache_control": cached, "function": {"name": "f", "description": "d", "strict": True}}
    made = body(user="u", service_tier="default", top_k=5, cache_control=cached, stop="END", tools=[tool])
    assert (made["metadata"], made["service_tier"], made["top_k"]) == ({"user_id": "u"}, "standard_only", 5)
    assert (made["cache_control"], made["stop_sequences"]) == (cached, ["END"])
    schema = {"type": "object", "properties": {}}
    assert made["tools"] == [
        {"name": "f", "input_schema": schema, "description": "d", "strict": True, "cache_control": cached}
    ]
    assert body(safety_identifier="s", service_tier="priority")["service_tier"] == "auto"


def test_a_stream_is_asked_for_as_one() -> None:
    assert json.loads(messages_body(Call(body=json.dumps({"messages": HI}).encode(), model="m"), stream=True))["stream"]
