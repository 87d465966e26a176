"""OpenAI's requests as Gemini is sent them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trunkline_actors.adapters import Call
from trunkline_actors.adapters.gemini_answer import Made, read_completion
from trunkline_actors.adapters.gemini_request import chat_body, embeddings_body, model_path
from trunkline_events.failure import FailureClass, UpstreamError

USER = {"role": "user", "content": "hi"}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1.0}'}}],
}


def sent(model: str = "gemini-2.5-pro", limit: int | None = None, **fields: Any) -> Any:
    body = json.dumps({"messages": [USER], **fields}).encode()
    return json.loads(chat_body(Call(body=body, model=model, max_tokens=limit))[0])


def refusal(model: str, **fields: Any) -> str:
    with pytest.raises(UpstreamError) as caught:
        sent(model, None, **fields)
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST
    return caught.value.failure.message


def test_parameters_go_by_their_names_in_gemini() -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 7,
        "n": 2,
        "presence_penalty": 1,
        "stop": "END",
    }
    assert sent(**fields, frequency_penalty=2, max_completion_tokens=9, limit=5)["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "seed": 7,
        "candidateCount": 2,
        "presencePenalty": 1,
        "frequencyPenalty": 2,
        "maxOutputTokens": 5,
        "stopSequences": ["END"],
    }


def test_system_and_developer_messages_join_the_system_instruction_in_their_order() -> None:
    messages = [
        {"role": "system", "content": "a"},
        USER,
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
    ]
    request = sent(messages=messages)
    assert request["systemInstruction"] == {"parts": [{"text": "a"}, {"text": "b"}]}
    assert request["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]


@pytest.mark.parametrize(
    ("effort", "model", "config"),
    [
        ("low", "gemini-2.5-flash", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("high", "gemini-2.5-flash", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("none", "gemini-2.5-flash", {"thinkingBudget": 0}),
        ("minimal", "gemini-3.8-flash", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("high", "gemini-flash-latest", {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_reasoning_effort_is_a_budget_up_to_2_5_and_a_level_from_3_on(effort: str, model: str, config: object) -> None:
    assert sent(model, reasoning_effort=effort)["generationConfig"] == {"thinkingConfig": config}


def test_exact_thinking_and_a_cached_content_may_be_asked_for_as_googles_own_endpoint_has_them() -> None:
    google = {
        "thinking_config": {"thinking_budget": 99, "include_thoughts": True},
        "cached_content": "cachedContents/x",
    }
    request = sent(extra_body={"google": google})
    assert request["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 99, "includeThoughts": True}}
    assert request["cachedContent"] == "cachedContents/x"


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_a_choice_of_tools_is_a_mode_of_calling(choice: object, config: object) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    request = sent(tools=tools, tool_choice=choice)
    assert request["tools"] == [{"functionDeclarations": [{"name": "f"}]}]
    assert request["toolConfig"] == {"functionCallingConfig": config}
    assert "toolConfig" not in sent(tool_choice=choice)


def test_results_of_parallel_calls_are_one_content_with_the_names_of_their_calls() -> None:
    second = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}
    calling = CALLING | {"tool_calls": [*CALLING["tool_calls"], second]}  # type: ignore[misc]
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "rain"}]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sun": true}'},
    ]
    _, said, told = sent(messages=[USER, calling, *results])["contents"]
    assert said["role"] == "model"
    assert said["parts"] == [
        {"functionCall": {"name": "f", "args": {"n": 1.0}, "id": "c1"}},
        {"functionCall": {"name": "g", "args": {}, "id": "c2"}},
    ]
    assert told["role"] == "user"
    assert told["parts"] == [
        {"functionResponse": {"id": "c2", "name": "g", "response": {"output": "rain"}}},
        {"functionResponse": {"id": "c1", "name": "f", "response": {"sun": True}}},
    ]


@given(st.text(min_size=1), st.text(min_size=1))
def test_signatures_come_back_to_gemini_as_they_were_given(signed: str, text: str) -> None:
    call = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": signed}
    parts = [{"text": text, "thoughtSignature": signed + "!"}, call]
    answer = json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).encode()
    made = Made(ident="abc", now=0, model="m")
    message = json.loads(read_completion(answer, made).body)["choices"][0]["message"]
    said = sent("gemini-3-pro", messages=[USER, message])["contents"][1]["parts"]
    assert said[0] == {"text": text, "thoughtSignature": signed + "!"}
    assert said[1]["thoughtSignature"] == signed
    assert said[1]["functionCall"] == {"name": "f", "args": {"a": 1}, "id": "call_abc_0"}


def test_a_call_that_another_model_made_is_signed_as_google_documents_it_from_gemini_3_on() -> None:
    messages = [USER, CALLING, {"role": "tool", "tool_call_id": "c1", "content": "ok"}]
    old, new = (sent(model, messages=messages)["contents"][1]["parts"] for model in ("gemini-2.5-pro", "gemini-3-pro"))
    assert "thoughtSignature" not in old[0]
    assert new[0]["thoughtSignature"] == "skip_thought_signature_validator"


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://x/a.JPG?b=1"}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x/a.JPG?b=1"}},
        ),
        ({"type": "image_url", "image_url": {"url": "https://x/a"}}, {"fileData": {"fileUri": "https://x/a"}}),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}},
        ),
    ],
)
def test_media_go_as_bytes_or_by_an_address_that_google_fetches(part: object, wanted: object) -> None:
    assert sent(messages=[{"role": "user", "content": [part]}])["contents"][0]["parts"] == [wanted]


IMAGE = {"type": "image_url", "image_url": {"url": "http://x/a.png"}}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"audio": {}}, "audio"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"reasoning_effort": "none", "model": "gemini-3-pro"}, "reasoning_effort"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "some"}, "tool_choice"),
        ({"extra_body": {"x": 1}}, "extra_body"),
        ({"extra_body": {"google": {"x": 1}}}, "extra_body.google.x"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages[0].content[0].file",
        ),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "c9", "content": "x"}]}, "messages[1].tool_call_id"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "["}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_gemini_has_nothing_like_is_refused_by_the_name_of_its_field(fields: dict[str, Any], named: str) -> None:
    model = fields.get("model", "gemini-2.5-pro")
    assert f"{named}:" in refusal(model, **{name: value for name, value in fields.items() if name != "model"})


def test_fields_that_change_no_answer_are_left_out() -> None:
    same = sent()
    ignored = {"user": "u", "metadata": {"a": "b"}, "store": True, "logprobs": None, "parallel_tool_calls": True}
    assert sent("gemini-2.5-pro", None, **ignored, stream=True, route={"attempts": 1}, modalities=["text"]) == same


def test_a_model_is_a_path_below_models_unless_its_name_has_a_collection() -> None:
    assert model_path("gemini-2.5-pro") == "models/gemini-2.5-pro"
    assert model_path("tunedModels/mine") == "tunedModels/mine"
    assert model_path("a?key=b#c") == "models/a%3Fkey%3Db%23c"


def test_texts_to_embed_go_as_one_batch_and_tokens_are_refused() -> None:
    def asked(**fields: Any) -> tuple[bytes, bool]:
        return embeddings_body(Call(body=json.dumps(fields).encode(), model="e"))

    body, as_base64 = asked(input=["a", "b"], dimensions=3, encoding_format="base64")
    assert as_base64
    assert json.loads(body)["requests"][1] == {
        "model": "models/e",
        "content": {"parts": [{"text": "b"}]},
        "outputDimensionality": 3,
    }
    for fields, named in (({"input": [1, 2]}, "input"), ({"input": "a", "encoding_format": "hex"}, "encoding_format")):
        with pytest.raises(UpstreamError, match=named):
            asked(**fields)


# fmt: off
NAMES = [
    "messages", "role", "content", "type", "text", "image_url", "url", "input_audio", "file", "file_data", "function",
    "name", "arguments", "id", "tool_calls", "tool_call_id", "extra_content", "google", "thought_signature", "tools",
    "tool_choice", "allowed_tools", "mode", "response_format", "json_schema", "schema", "extra_body", "thinking_config",
    "stop", "n", "reasoning_effort", "max_tokens",
]
WORDS = ["user", "assistant", "tool", "system", "text", "image_url", "file", "function", "allowed_tools", "data:"]
# fmt: on
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from([*WORDS, "{}", "c1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]), "content": ANYTHING},
        optional={"tool_calls": ANYTHING, "tool_call_id": ANYTHING, "extra_content": ANYTHING},
    )
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4)


@settings(max_examples=300)
@given(FIELDS, MESSAGES | ANYTHING)
def test_whatever_a_caller_sends_is_carried_or_refused(fields: dict[str, Any], messages: object) -> None:
    call = Call(body=json.dumps({"messages": messages} | fields).encode(), model="m")
    try:
        chat_body(call)
    except UpstreamError as error:
        refused = error.failure.kind
    else:
        refused = FailureClass.INVALID_REQUEST
    assert refused is FailureClass.INVALID_REQUEST
