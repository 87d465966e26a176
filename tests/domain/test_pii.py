"""Personal data and keys in texts: what is found, what is not, and that taking it out leaves nothing of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline.pii import ALL, Found, Kind, find, luhn, redact, redact_json

OURS = "tl-" + "Ab3_-" * 8 + "xyz"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

FINDS: list[tuple[Kind, str]] = [
    *(
        ("email", text)
        for text in ("ada@example.org", "a.b+c_d@mail.example.co.uk", "x@xn--bcher-kva.example", "1@a.io")
    ),
    *(("phone", text) for text in ("+49 30 1234567", "+4930123456", "+1 (415) 555-2671", "+44-20-7946-0958")),
    *(("phone", text) for text in ("(415) 555-2671", "415-555-2671", "415.555.2671", "030 1234567", "0171/2345678")),
    *(("card", text) for text in ("4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "378282246310005")),
    *(("card", text) for text in ("6011111111111117", "3530111333300000", "30569309025904", "2223003122003222")),
    *(("key", text) for text in (OURS, "sk-ant-api03-" + "x" * 40, "sk-proj-" + "a1" * 20, "AKIAIOSFODNN7EXAMPLE")),
    *(("key", text) for text in ("ghp_" + "a" * 36, "xoxb-123456789012-abcdef", "AIza" + "b" * 35, TOKEN)),
    ("key", "SU" + "A" * 56),
    ("key", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"),
]


@pytest.mark.parametrize(("kind", "text"), FINDS)
@pytest.mark.parametrize("around", ["{}", "see {}.", "({}), please", "a\n{}\nb", '"{}"'])
def test_it_is_found_whatever_stands_around_it(kind: Kind, text: str, around: str) -> None:
    whole = around.format(text)
    (found,) = find(whole)
    assert (found.kind, whole[found.start : found.end]) == (kind, text)
    assert redact(whole) == around.format(f"[{kind.upper()}]")


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-28", "28.11.2026", "2026-11-28 12:30:45", "192.168.100.200", "3.14159265358979", "v1.22.333.4444"),
        *(
            "order 12345678",
            "12345678901234",
            "978-3-16-148410-0",
            "1,234,567.89",
            "4111 1111 1111 1112",
            "0000000000000000",
        ),
        *("user@localhost", "@mention", "a@b", "sk-short", "AKIA123", "eyJub3Rqc29u.AAAA.BBBBBBBBBB", "Bearer of news"),
        *("100 000 000", "10:15 to 11:45", "1 2 3 4 5 6 7 8", "+0 123 4567", "the 1990-2000 decade", "#415-555"),
    ],
)
def test_what_only_looks_a_little_like_it_is_let_be(text: str) -> None:
    assert find(text) == []


def test_of_two_at_one_place_the_longer_one_counts() -> None:
    assert [one.kind for one in find("mail 415-555-2671@example.org")] == ["email"]
    assert [one.kind for one in find("Authorization: Bearer " + OURS)] == ["key"]
    assert [one.kind for one in find("4111 1111 1111 1111", ["phone"])] == []


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    text = "ada@example.org +49 30 1234567 4111111111111111"
    assert [one.kind for one in find(text)] == ["email", "phone", "card"]
    for kind in ("email", "phone", "card"):
        assert [one.kind for one in find(text, [kind])] == [kind]
    assert redact(text, ["email"], lambda found, original: f"<{found.kind} {len(original)}>").startswith("<email 15>")


def test_what_is_found_says_where_and_never_what() -> None:
    assert "ada" not in repr(find("ada@example.org"))


def test_a_json_value_is_redacted_in_all_of_its_texts_and_nowhere_else() -> None:
    value = {"ada@example.org": ["x ada@example.org", 4111111111111111, None, {"a": True, "b": "y"}]}
    assert redact_json(value) == {"ada@example.org": ["x [EMAIL]", 4111111111111111, None, {"a": True, "b": "y"}]}


PREFIXES = ("4", "51", "55", "2221", "2720", "34", "37", "6011", "65", "644", "3528", "3589", "36", "300", "62")
LENGTHS = {"34": 15, "37": 15, "36": 14, "300": 14}


def a_card(prefix: str, draw: random.Random) -> str:
    digits = prefix + "".join(draw.choice("0123456789") for _ in range(LENGTHS.get(prefix, 16) - len(prefix) - 1))
    return next(digits + last for last in "0123456789" if luhn(digits + last))


@given(st.sampled_from(PREFIXES), st.randoms(use_true_random=False), st.sampled_from(["", " ", "-"]))
def test_any_card_is_found_however_it_is_grouped_and_is_none_with_one_digit_changed(
    prefix: str, draw: random.Random, between: str
) -> None:
    card = a_card(prefix, draw)
    grouped = between.join(card[place : place + 4] for place in range(0, len(card), 4))
    assert [one.kind for one in find(f"pay with {grouped} now")] == ["card"]
    last = str((int(card[-1]) + 1) % 10)
    assert "card" not in [one.kind for one in find(grouped[:-1] + last)]


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12), st.sampled_from([text for _, text in FINDS]), st.text("0123456789+-. ()@", max_size=30)
    ),
    max_size=8,
).map(" ".join)


@given(TEXTS)
def test_what_is_found_lies_in_the_text_in_order_and_apart(text: str) -> None:
    place = 0
    for one in find(text):
        assert place <= one.start < one.end <= len(text)
        assert one.kind in ALL
        place = one.end


@given(TEXTS)
def test_nothing_is_left_to_be_found_in_what_was_redacted(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "piece", ["a", "1", "1 ", "a@", "a.", "a@a.", "+", "(", "-", "sk-", "eyJ", "-----BEGIN ", "Bearer "]
)
def test_a_long_text_of_the_same_takes_no_longer_than_it_is_long(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    assert all(isinstance(one, Found) for one in find(text))
