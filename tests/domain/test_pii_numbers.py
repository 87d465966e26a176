"""Which digits in a text are a phone or a card number, and which only look like one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trunkline.pii import Kind, find, redact
from trunkline.pii_numbers import ISSUERS, has_check_digit


def seen(text: str) -> list[tuple[Kind, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find(text)]


# -- phones ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        *("+49 30 1234567", "+49-30-1234567", "+49 (0)30 1234567", "+49 (30) 12 34-567", "(+49) 30 1234567"),
        *("+493012345678", "+1.415.555.2671", "+33 6.12.34.56.78", "+44 20 7946 0958", "+1 (415) 555-2671"),
        *("0049 30 1234567", "030 1234567", "030/1234567", "030 - 1234567", "(030) 1234567", "0171/12 34 567-89"),
        *("06 12 34 56 78", "06.12.34.56.78", "0612345678", "07911 123456", "03-1234-5678", "0301234567-12"),
        *("415-555-2671", "(415) 555-2671", "(415)555-2671", "415.555.2671", "415 555 2671", "1-800-555-2671"),
        *("+49\u00a030\u202f1234567", "+49 30\u20111234567", "\uff0b49 30 1234567", "01 23456", "+12 34567"),
        *("+123 456 789 012 345",),
    ],
)
@pytest.mark.parametrize("around", ["{}", "Call {}.", "tel:{}", "[{}]", "phone={}&x", "电话{}，", "7,{},8"])
def test_a_phone_number_is_found(number: str, around: str) -> None:
    assert seen(around.format(number)) == [("phone", number)]


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-28", "28.11.2026", "01.02.2026 08:30", "05/11/2026", "01-02-2026", "01/02/26 1234567", "01 02 2026"),
        *("2026-01-02T03:04:05.678901+01:00", "20261128T010203Z", "2026/01/28 1234567", "08:30:15", "08:30-09:45"),
        *("192.168.0.1", "010.020.030.040:8080", "fe80::0123:4567:89ab", "v1.22.333", "1.2.3.4", "2.0.0-rc.1"),
        *("3.14159265358979", "0.30000000000000004", "+3.1415926535", "-0.0123456", "1.234.567,89", "+1.234.567"),
        *("12345678", "1234567890", "order 4155552671", "0012345678", "012345678", "036000291452", "1,234,567"),
        *("ISBN 0306406152", "ISBN 978-0-306-40615-7", "0-306-40615-2", "978-3-16-148410-0", "ISBN-10: 0-306-40615-2"),
        *(
            "DE89 3704 0044 0532 0130 00",
            "GB29 NWBK 6016 1331 9268 19",
            "INV-0123-4567",
            "a0123-4567",
            "img_0123-45678",
        ),
        *("123e4567-e89b-12d3-a456-426614174000", "0x0123456789", "#0123456789", "100 200 3000", "555-2671", "+12345"),
        *("+1234567890123456", "52.520008, 13.404954", "1e1000000", "030 12", "2+41555526710x"),
    ],
)
def test_what_has_many_digits_only_is_no_phone_number(text: str) -> None:
    assert find(text) == []


def test_two_numbers_are_two() -> None:
    assert redact("030 1234567 040 7654321") == "[PHONE] [PHONE]"
    assert redact("415-555-2671/415-555-2672") == "[PHONE]/[PHONE]"
    assert redact("+49 30 1234567 4111 1111 1111 1111") == "[PHONE] [CARD]"
    assert redact("+49 30 1234567, 28.11.2026 12:30") == "[PHONE], 28.11.2026 12:30"
    assert redact("+49 30 1234567 12:30") == "[PHONE] 12:30"


# -- cards -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        *("4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "4222222222222", "5555 5555 5555 4444"),
        *("2223 0031 2200 3222", "3782 822463 10005", "6011 1111 1111 1117", "3530 1113 3330 0000", "3056 930902 5904"),
        *("6250 9410 0652 8599", "6759 6498 2643 8453", "501800000009"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "Card {}.", "{} 12/28", "12/28 {}", "1,{},2", "x-{}-x", "[{}]", "卡号{}，"])
def test_a_card_is_found(number: str, around: str) -> None:
    assert seen(around.format(number)) == [("card", number)]


@pytest.mark.parametrize(
    "text",
    [
        *("4111111111111112", "4111 1111 1111 1112", "0000000000000000", "1111 1111 1111 1117", "9999999999999995"),
        *(
            "0.4111111111111111",
            "4111111111111111.5",
            "a4111111111111111",
            "4111111111111111b",
            "4111  1111  1111  1111",
        ),
        *("id_4111111111111111", "411111111111", "5500-0000-0000-04", "+4111111111111111", "41111111111111111111"),
    ],
)
def test_what_is_as_long_only_is_no_card(text: str) -> None:
    assert find(text) == []


def check_digit(digits: str) -> str:
    return next(last for last in "0123456789" if has_check_digit((digits + last).encode()))


@st.composite
def cards(draw: st.DrawFn) -> str:
    prefixes, lengths = ISSUERS[draw(st.sampled_from(sorted(ISSUERS)))]
    prefix = str(draw(st.sampled_from([number for several in prefixes for number in several])))
    size = draw(st.sampled_from(lengths)) - len(prefix) - 1
    digits = prefix + draw(st.text("0123456789", min_size=size, max_size=size))
    return digits + check_digit(digits)


@settings(max_examples=200)
@given(cards(), st.data())
def test_a_card_of_any_issuer_is_found_in_any_grouping(number: str, data: st.DataObject) -> None:
    joints = data.draw(st.lists(st.sampled_from(["", "", " ", "-"]), min_size=len(number), max_size=len(number)))
    written = number[0] + "".join(joint + digit for joint, digit in zip(joints, number[1:], strict=False))
    assert seen(f"Card: {written}.") == [("card", written)]


@settings(max_examples=200)
@given(cards(), st.data())
def test_a_card_with_one_digit_wrong_is_none(number: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(number) - 1))
    wrong = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[at]]))
    assert ("card", number) not in seen(number[:at] + wrong + number[at + 1 :])
    assert "card" not in {one.kind for one in find(number[:at] + wrong + number[at + 1 :])}
