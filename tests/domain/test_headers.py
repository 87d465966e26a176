"""Any text as a header value, and back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trunkline_events.headers import decode_value, encode_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
@example("50%")
@example("a%41")
@example("%")
@example("é%41")
@example(" %41 ")
@example("\r\nNats-Msg-Id: x")
def test_any_text_survives_as_a_header_value(text: str) -> None:
    value = encode_value(text)
    assert value.isascii()
    assert value.isprintable()
    assert value == value.strip()
    assert decode_value(value) == text


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="%")))
def test_printable_ascii_stays_as_it_is(text: str) -> None:
    assert encode_value(text) == text


@pytest.mark.parametrize("text", ["", "a b", "50%", "100% sure", '{"a": [1, 2]}', "a;b=c", "%zz"])
def test_what_reads_back_the_same_is_left_readable(text: str) -> None:
    assert encode_value(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a%41", "a%2541"),
        ("Zürich, 3 °C", "Z%C3%BCrich, 3 %C2%B0C"),
        ("a\r\nb", "a%0D%0Ab"),
        (" a", "%20a"),
        ("\t", "%09"),
        ("\u2028", "%E2%80%A8"),
    ],
)
def test_the_rest_is_percent_encoded(text: str, value: str) -> None:
    assert encode_value(text) == value


def test_bytes_that_are_no_utf_8_are_read_with_them_replaced() -> None:
    assert decode_value("a%FF") == "a\ufffd"
