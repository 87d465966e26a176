"""Ids in subjects, the ids we take, and the reply subjects we write to."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trunkline_events.subjects import (
    CATEGORIES,
    category_filter,
    decode_id,
    encode_id,
    id_problem,
    is_inbox,
    log_subject,
    provider_endpoint,
    split_log_subject,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=128)
IDS = TEXT.filter(lambda text: 0 < len(text.encode()) <= 128)
TOKEN = re.compile(r"[A-Za-z0-9_=-]+")


@pytest.mark.parametrize(
    ("identifier", "token"),
    [
        ("gpt-4_1", "gpt-4_1"),
        ("gpt-4.1", "gpt-4=2E1"),
        ("meta/llama", "meta=2Fllama"),
        ("a b", "a=20b"),
        ("*", "=2A"),
        (">", "=3E"),
        ("a=2E", "a=3D2E"),
        ("é", "=C3=A9"),
        ("模", "=E6=A8=A1"),
        ("😀", "=F0=9F=98=80"),
        ("-", "-"),
    ],
)
def test_each_byte_outside_the_safe_set_becomes_upper_case_hex(identifier: str, token: str) -> None:
    assert encode_id(identifier) == token
    assert decode_id(token) == identifier


@given(IDS)
def test_any_id_becomes_one_subject_token_and_comes_back(identifier: str) -> None:
    token = encode_id(identifier)
    assert TOKEN.fullmatch(token)
    assert decode_id(token) == identifier


@given(IDS, IDS)
def test_two_ids_never_share_a_token(one: str, other: str) -> None:
    assume(one != other)
    assert encode_id(one) != encode_id(other)


@given(st.text())
def test_decoding_a_token_that_nobody_encoded_gives_some_text_and_never_raises(token: str) -> None:
    decode_id(token)


def test_a_token_of_bytes_that_are_no_utf_8_is_read_with_them_replaced() -> None:
    assert decode_id("=FFa") == "\ufffda"


@pytest.mark.parametrize(
    ("identifier", "problem"),
    [
        ("", "empty"),
        ("a" * 129, "at most 128 bytes, this one has 129"),
        ("é" * 65, "this one has 130"),
        ("\ud800", "UTF-8"),
        ("a\udfffb", "UTF-8"),
        ("-", "no thread"),
        *((f"a{char}b", "control characters") for char in "\x00\t\n\r\x1b\x1f\x7f\x80\x85\x9f\u2028\u2029"),
    ],
)
def test_what_can_not_be_an_id_is_told_why(identifier: str, problem: str) -> None:
    assert problem in (id_problem(identifier) or "")


@pytest.mark.parametrize("identifier", ["a", "--", "a" * 128, "é" * 64, "a.b/c d", "*", ">", "\xa0", "$G", "${HOME}"])
def test_everything_else_of_1_to_128_bytes_is_an_id(identifier: str) -> None:
    assert id_problem(identifier) is None


@given(st.text())
def test_whatever_passes_as_an_id_can_be_encoded(identifier: str) -> None:
    if id_problem(identifier) is None:
        assert decode_id(encode_id(identifier)) == identifier


@pytest.mark.parametrize(
    "reply", ["_INBOX.a", "_INBOX.a.b", "_INBOX.AbC123.1", "_INBOX.router.AbC123.1", "_INBOX.te=2Eam.a.1", "_INBOX.$x"]
)
def test_a_subject_below_the_inbox_prefix_may_be_replied_to(reply: str) -> None:
    assert is_inbox(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "_INBOX",
        "_INBOX.",
        "_INBOXX.a",
        "_INBOX_.a",
        "_inbox.a",
        " _INBOX.a",
        "x._INBOX.a",
        "trunkline.log.thread.a",
        "trunkline.chat",
        "$JS.API.STREAM.DELETE.TRUNKLINE",
        "$SYS.x",
        "_INBOX.*",
        "_INBOX.>",
        "_INBOX.a.*.b",
        "_INBOX.a b",
        "_INBOX.a\r\nPUB trunkline.log.x 0",
        "_INBOX.a\n",
        "_INBOX.a\t",
        "_INBOX..a",
        "_INBOX.a.",
    ],
)
def test_nothing_else_is_written_to(reply: str) -> None:
    assert not is_inbox(reply)


def test_the_prefixes_of_inboxes_are_the_operators_choice() -> None:
    assert is_inbox("_OPS.a", ("_INBOX", "_OPS"))
    assert is_inbox("_INBOX.team.a", ("_INBOX.team",))
    assert not is_inbox("_INBOX.other.a", ("_INBOX.team",))
    assert is_inbox("_INBOX.other.a", ("_INBOX.team", "_INBOX.other"))
    assert not is_inbox("_INBOX.a", ())


@given(st.text())
def test_no_reply_subject_that_passes_can_end_a_protocol_line_or_match_many(reply: str) -> None:
    if is_inbox("_INBOX." + reply):
        assert not set(reply) & set("\r\n *>\t")


@given(st.sampled_from(CATEGORIES), IDS)
def test_a_log_subject_splits_into_what_it_was_made_of(category: str, aggregate: str) -> None:
    subject = log_subject(category, aggregate)
    assert subject.count(".") == 3
    assert subject.startswith(category_filter(category).removesuffix(">"))
    assert split_log_subject(subject) == (category, aggregate)


@pytest.mark.parametrize(
    ("subject", "parts"),
    [
        ("trunkline.events.model.a=2Eb", ("model", "a.b")),
        ("trunkline.log.x", ("x", "")),
        ("trunkline.log.x.", ("x", "")),
        ("trunkline.log.x.a.b.c", ("x", "a.b.c")),
    ],
)
def test_a_subject_that_nobody_of_ours_made_splits_too(subject: str, parts: tuple[str, str]) -> None:
    assert split_log_subject(subject) == parts


@given(st.text())
def test_splitting_is_total(subject: str) -> None:
    split_log_subject(subject)


def test_an_instance_with_a_dot_in_its_name_has_endpoints_of_one_token_more() -> None:
    assert provider_endpoint("my.box", "chat") == "trunkline.provider.my=2Ebox.chat"


def test_our_encoding_is_that_of_urls_with_another_escape() -> None:
    assert unquote(encode_id("a/ü.").replace("=", "%")) == "a/ü."
