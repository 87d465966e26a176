"""The hints that are found in a request: what each is for, and that none holds a word of a prompt."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.analyzer import DECODED, HINTS, LOOKED_AT, analyze, names, wanted
from trunkline_events.policy import Policy

CANARY = "Xylophonqua77"


def chat(content: Any, **more: Any) -> bytes:
    return msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": content}], **more})


def hints(content: Any, **more: Any) -> list[str]:
    return analyze(chat(content, **more), "chat")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I sort a list in Python?", ["short", "code", "question:how", "lang:en"]),
        ("What is the capital of France?", ["short", "question:what", "quick-question", "lang:en"]),
        ("Warum ist der Himmel blau?", ["short", "question:why", "lang:de"]),
        ("Comment faire un gâteau avec la farine ?", ["short", "question:how", "lang:fr"]),
        ("Here is a word. Where does it come from?", ["short", "question:where", "quick-question", "lang:en"]),
        ("Translate this to the German of today: hello", ["short", "translation", "lang:en"]),
        ("Schreibe mir ein Gedicht über die See", ["short", "creative", "lang:de"]),
        ("Summarize the following text for me", ["short", "summary", "lang:en"]),
        ("Extract the names from this letter", ["short", "extraction", "lang:en"]),
        ("solve 3*x + 4 = 10", ["short", "math", "lang:other"]),
        ("is 12 * 12 in the table", ["short", "math", "lang:en"]),
        ("def add(a, b):\n    return a + b", ["short", "code", "lang:other"]),
        ("日本語で説明してください", ["short", "lang:ja"]),
        ("你好吗", ["short", "lang:zh"]),
        ("Привет, как дела", ["short", "lang:ru"]),
        ("Cómo se dice esto en inglés", ["short", "question:how", "lang:es"]),
        ("xyzzy plugh", ["short", "lang:other"]),
        ("12345", ["short"]),
        ("", ["short"]),
    ],
)
def test_a_request_is_described(text: str, expected: list[str]) -> None:
    assert hints(text) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(900, "short"), (5_000, None), (20_000, "long"), (200_000, "very-long")]
)
def test_its_length_has_a_name_where_it_matters(size: int, expected: str | None) -> None:
    found = {"short", "long", "very-long"} & set(hints("a" * size))
    assert found == ({expected} if expected else set())


def test_the_length_is_that_of_the_whole_conversation() -> None:
    messages = [{"role": "user", "content": "a" * 9_000}, {"role": "assistant", "content": "b" * 9_000}]
    body = msgspec.json.encode({"messages": [*messages, {"role": "user", "content": "and then?"}]})
    assert analyze(body, "chat") == ["long", "multi-turn", "lang:en"]


def test_what_comes_with_a_request_is_told() -> None:
    picture = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": "data:" + "A" * 9_999}},
    ]
    assert hints(picture) == ["short", "question:what", "quick-question", "images", "lang:en"]
    assert "tools" in hints("hi", tools=[{"type": "function"}])
    assert "tools" not in hints("hi", tools=[])
    assert "json" in hints("hi", response_format={"type": "json_schema"})
    assert "json" not in hints("hi", response_format={"type": "text"})


def test_only_the_last_words_of_the_user_count() -> None:
    turns = [
        {"role": "system", "content": "translate everything"},
        {"role": "user", "content": "write a poem"},
        {"role": "assistant", "content": "def f(): ..."},
        {"role": "user", "content": [{"type": "text", "text": "what is the time"}]},
        {"role": "tool", "content": "extract"},
    ]
    found = analyze(msgspec.json.encode({"messages": turns}), "chat")
    assert found == ["short", "question:what", "quick-question", "multi-turn", "lang:en"]
    assert analyze(msgspec.json.encode({"messages": [{"role": "system", "content": "write a poem"}]}), "chat") == [
        "short"
    ]


def test_embeddings_have_a_length_and_a_language() -> None:
    assert analyze(b'{"input": "the cat is on the mat"}', "embeddings") == ["short", "lang:en"]
    assert analyze(b'{"input": ["a", "b"]}', "embeddings") == ["short"]
    assert analyze(b'{"input": 1', "embeddings") == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": [1]}', b"\xff\xfe", b"[" * 9_999]
)
def test_a_body_that_makes_no_sense_has_no_hints(body: bytes) -> None:
    assert analyze(body, "chat") == []


CONTENTS = (
    st.text() | st.none() | st.integers() | st.lists(st.text() | st.dictionaries(st.text(), st.text(), max_size=3))
)


@given(st.binary(), st.sampled_from(["chat", "embeddings"]))
def test_no_bytes_make_it_fail(body: bytes, operation: Any) -> None:
    assert analyze(body, operation) == analyze(body, operation)


@given(CONTENTS, st.integers(0, 3))
def test_no_content_makes_it_fail_and_the_same_request_has_the_same_hints(content: Any, turns: int) -> None:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content}] * turns
    body = msgspec.json.encode({"messages": messages})
    assert analyze(body, "chat") == analyze(bytes(bytearray(body)), "chat")


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_hint_holds_a_word_of_the_prompt(before: str, after: str) -> None:
    text = f"{before}{CANARY}{after}? {CANARY} {before}"
    for found in (
        hints(text),
        hints([{"type": "text", "text": text}]),
        analyze(msgspec.json.encode({"input": text}), "embeddings"),
    ):
        assert names(found) == found
        assert CANARY.lower() not in " ".join(found).lower()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), min_size=1, max_size=20), st.booleans())
def test_what_lies_between_the_two_ends_of_a_text_is_not_looked_at(filling: str, ascii_only: bool) -> None:
    """So the work is the same however long a text is: its length is all that counts of its middle."""
    ends = "the end of it " * (LOOKED_AT // 14 + 1)
    for length in (LOOKED_AT, DECODED):
        middles = ["." * length, (filling * length)[:length]]
        bodies = [chat(ends + middle + ends) for middle in middles]
        kept = [[hint for hint in analyze(body, "chat") if hint not in ("long", "very-long")] for body in bodies]
        assert kept[0] == kept[1] == ["lang:en"]


@given(st.text(max_size=300), st.integers(0, 40))
def test_a_long_text_may_be_cut_anywhere(piece: str, shift: int) -> None:
    """Escapes and characters of several bytes are where a text in JSON can't be cut."""
    text = "é" * shift + (piece or "\n") * (DECODED // max(1, len(piece)))
    assert "lang:" in "".join(hints(text + " x ")) or not any(map(str.isalpha, text))


# -- what hints ask for ------------------------------------------------------------------------------------------------


def test_hints_ask_for_capabilities_each_once() -> None:
    assert wanted(["short", "code", "math", "lang:en"], Policy()) == ["reasoning", "precision"]
    assert wanted(["quick-question"], Policy()) == ["speed"]
    assert wanted(["creative", "very-long"], Policy()) == ["creativity", "context"]
    assert wanted(["never-heard-of"], Policy()) == []


def test_a_policy_adds_to_what_hints_ask_for_and_replaces_it() -> None:
    policy = Policy(hints={"code": ["coding"], "lang:de": ["german"], "math": []})
    assert wanted(["code", "math", "lang:de", "creative"], policy) == ["coding", "german", "creativity"]


def test_every_hint_of_the_table_is_one_that_can_be_found() -> None:
    texts = ["def f():", "3 * 4", "why is it", "write a poem", "extract it", "translate it", "x" * 200_000, "who is it"]
    found = {hint for text in texts for hint in hints(text)}
    assert set(HINTS) <= found


@pytest.mark.parametrize("bad", [None, "code", ("code",), [1], ["a b"], [""], ["x" * 65], ["é"], ["a"] * 33])
def test_what_is_no_list_of_names_is_not_taken_for_hints(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"analyzer gives|hint is"):
        names(bad)


def test_hints_of_others_count_once_each() -> None:
    assert names(["code", "team:a", "code"]) == ["code", "team:a"]
