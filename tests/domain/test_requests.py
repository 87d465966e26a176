"""Requests read from JSON: what routing learns of them, and how the rest is refused."""

from typing import Any

import msgspec
import pytest
from given import chat, embeddings
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.requests import MESSAGE_TOKENS, Parsed, Route, parse_chat, parse_embeddings
from trunkline_events.refusal import Refused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGE = {"role": "user", "content": "hi"}
GOOD: dict[str, Any] = {"model": "m", "messages": [MESSAGE]}
PARSERS = (parse_chat, parse_embeddings)


def body(**changes: Any) -> bytes:
    return msgspec.json.encode({**GOOD, "input": "hi", **changes})


def refused(parsed: Parsed | Refused, param: str | None) -> str:
    assert isinstance(parsed, Refused), parsed
    assert (parsed.code, parsed.param) == ("invalid_request", param)
    return parsed.message


# -- what is learnt


def test_a_plain_chat_is_bounded_by_its_bytes_and_its_messages() -> None:
    raw = msgspec.json.encode({"model": "m", "messages": [MESSAGE] * 3})
    parsed = parse_chat(raw)
    assert isinstance(parsed, Parsed)
    assert parsed.asked.input_bound == len(raw) + 3 * MESSAGE_TOKENS
    assert (parsed.asked.operation, parsed.asked.model, parsed.asked.stream) == ("chat", "m", False)
    assert (parsed.asked.max_tokens, parsed.asked.features, parsed.asked.route) == (None, [], {})
    assert (parsed.route, parsed.max_cost_nanos, parsed.thread) == (Route(), None, None)
    assert (parsed.include_usage, parsed.choices) == (False, 1)


def test_the_prompt_is_no_part_of_what_is_recorded() -> None:
    assert b"secret" not in msgspec.json.encode(chat(messages=[{"role": "user", "content": "secret"}]).asked)


def test_an_image_is_bounded_more_generously_than_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    parsed = chat(messages=[{"role": "user", "content": [image]}])
    assert parsed.asked.features == ["vision"]
    assert parsed.asked.images == 1


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({"tools": [{"type": "function"}]}, ["tools"]),
        ({"tools": []}, []),
        ({"tools": None}, []),
        ({"response_format": {"type": "json_schema"}}, ["json_schema"]),
        ({"response_format": {"type": "json_object"}}, []),
        ({"response_format": None}, []),
    ],
)
def test_the_abilities_that_a_body_needs_are_named(fields: dict[str, Any], features: list[str]) -> None:
    assert chat(**fields).asked.features == features


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": None}, None),
    ],
)
def test_the_newer_name_of_the_output_bound_wins(fields: dict[str, Any], bound: int | None) -> None:
    assert chat(**fields).asked.max_tokens == bound


def test_what_a_chat_says_beside_its_messages_is_read() -> None:
    parsed = chat(stream=True, n=3, stream_options={"include_usage": True}, metadata={"thread_id": "t", "x": 1})
    assert parsed.asked.stream
    assert (parsed.choices, parsed.include_usage, parsed.thread) == (3, True, "t")
    assert chat(stream_options={}).include_usage is False
    assert chat(metadata={}).thread is None


def test_the_callers_wishes_are_read_and_those_that_differ_recorded() -> None:
    parsed = chat(route={"prefer": ["a"], "attempts": 3, "max_cost_usd": "0.05", "optimize": "cost"})
    assert parsed.route.prefer == ["a"]
    assert parsed.max_cost_nanos == 50_000_000
    assert parsed.asked.route == {"prefer": ["a"], "max_cost_usd": "0.05", "optimize": "cost"}


def test_fields_of_openai_that_routing_does_not_need_are_passed_over() -> None:
    assert chat(temperature=0.5, logit_bias={"1": 2}, user="u").asked.model == "m"


@pytest.mark.parametrize("given", ["hi", ["a", "b"], [1, 2], [[1, 2], [3]]])
def test_embeddings_take_text_and_tokens_alone_and_in_lists(given: Any) -> None:
    parsed = embeddings(input=given, metadata={"thread_id": "t"}, route={"local_only": True})
    asked = parsed.asked
    assert (asked.operation, asked.features, asked.stream, asked.max_tokens) == (
        "embeddings",
        ["embeddings"],
        False,
        None,
    )
    assert asked.route == {"local_only": True}
    assert parsed.thread == "t"


def test_embeddings_are_bounded_by_their_bytes() -> None:
    raw = body()
    parsed = parse_embeddings(raw)
    assert isinstance(parsed, Parsed)
    assert parsed.asked.input_bound == len(raw)


# -- what is refused


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"model":"\xff"}', "not valid JSON"),
        (b'{"model":"\\ud800","messages":[{"role":"user"}],"input":"x"}', "not valid JSON"),
        (b'{"model":"m","x":' + b"[" * 100_000, "not valid JSON"),
        (b'{"model":"m","x":' + b'{"a":' * 100_000, "not valid JSON"),
        (b"[" * 100_000, "array"),
        (b"null", "null"),
        (b"[]", "array"),
        (b"{}", "model"),
    ],
)
def test_a_body_that_is_no_request_is_refused(parse: Any, raw: bytes, words: str) -> None:
    assert words in refused(parse(raw), None)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"model": 1}, "model"),
        ({"model": ""}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"model": "x" * 129}, "model"),
        ({"metadata": 1}, "metadata"),
        ({"metadata": {"thread_id": 1}}, "metadata.thread_id"),
        ({"route": []}, "route"),
        ({"route": {"colour": "red"}}, "route"),
        ({"route": {"optimize": "beauty"}}, "route.optimize"),
        ({"route": {"prefer": ["a", 1]}}, "route.prefer[1]"),
        ({"route": {"attempts": 0}}, "route.attempts"),
        ({"route": {"attempts": 17}}, "route.attempts"),
        ({"route": {"deadline_ms": 0}}, "route.deadline_ms"),
        ({"route": {"deadline_ms": 3_600_001}}, "route.deadline_ms"),
        ({"route": {"max_cost_usd": "much"}}, "route.max_cost_usd"),
        ({"route": {"max_cost_usd": 0.05}}, "route.max_cost_usd"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_place(parse: Any, fields: dict[str, Any], place: str) -> None:
    refused(parse(body(**fields)), place)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [MESSAGE, {"role": 1}]}, "messages[1].role"),
        ({"messages": [{"content": "hi"}]}, "messages[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**31 + 1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_a_chat_that_makes_no_sense_is_refused_at_its_field(fields: dict[str, Any], place: str) -> None:
    refused(parse_chat(body(**fields)), place)


@pytest.mark.parametrize(("given", "place"), [("", "input"), ([], "input"), (1, "input"), ([None], "input[0]")])
def test_embeddings_of_nothing_are_refused(given: Any, place: str) -> None:
    refused(parse_embeddings(body(input=given)), place)


@given(st.sampled_from(PARSERS), st.binary())
def test_no_bytes_make_parsing_raise(parse: Any, raw: bytes) -> None:
    parse(raw)


FIELDS = ("model", "messages", "input", "stream", "max_tokens", "n", "tools", "response_format", "metadata", "route")


@given(st.sampled_from(PARSERS), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_no_json_makes_parsing_raise_and_each_refusal_is_of_the_contract(parse: Any, fields: dict[str, Any]) -> None:
    parsed = parse(body(**fields))
    assert isinstance(parsed, Parsed) or parsed.code == "invalid_request"


@given(st.dictionaries(st.sampled_from(Route.__struct_fields__), JSON, max_size=3))
def test_no_route_makes_parsing_raise(route: dict[str, Any]) -> None:
    parsed = parse_chat(body(route=route))
    assert isinstance(parsed, Parsed) or (parsed.param or "").startswith("route")


@given(JSON)
def test_no_json_at_all_makes_parsing_raise(value: Any) -> None:
    for parse in PARSERS:
        parsed = parse(msgspec.json.encode(value))
        assert isinstance(parsed, Refused)
        assert parsed.code == "invalid_request"
