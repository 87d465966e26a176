"""Dollars and nano-dollars: exact, or refused."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_events.money import NANOS, BadAmount, cost_nanos, nanos_from_usd, usd_from_nanos

TOKENS = st.integers(0, 10**9)
PRICES = st.integers(0, 10**15)


@given(st.integers(0, 9_000_000_000 * NANOS))
def test_every_amount_of_nano_dollars_survives_as_text(nanos: int) -> None:
    text = usd_from_nanos(nanos)
    assert re.fullmatch(r"\d+(\.\d*[1-9])?", text)
    assert nanos_from_usd(text) == nanos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (10, "0.00000001"),
        (2_500_000_000, "2.5"),
        (10_000_000_000, "10"),
        (-1, "-0.000000001"),
        (-2_500_000_000, "-2.5"),
        (9_000_000_000 * NANOS, "9000000000"),
    ],
)
def test_dollars_are_written_without_exponent_or_trailing_zeros(nanos: int, text: str) -> None:
    assert usd_from_nanos(nanos) == text


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("2.5", 2_500_000_000), ("0", 0), ("-0", 0), ("0.000000001", 1), ("1.0000000000", NANOS), ("1e-7", 100)],
)
def test_a_plain_amount_is_read_exactly(text: str, nanos: int) -> None:
    assert nanos_from_usd(text) == nanos


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "$1",
        "1,5",
        "0x1",
        "nan",
        "sNaN",
        "inf",
        "-inf",
        "-1",
        "-0.000000001",
        "9000000000.000000001",
        "1e400",
        "0.0000000001",
        "1.0000000000000000000000000000000001",
        "1e-99999999999",
    ],
)
def test_anything_else_is_a_bad_amount_and_says_so(text: str) -> None:
    with pytest.raises(BadAmount, match=re.escape(repr(text))):
        nanos_from_usd(text)


@given(st.text())
def test_any_text_is_an_amount_or_a_bad_amount(text: str) -> None:
    try:
        nanos = nanos_from_usd(text)
    except BadAmount:
        return
    assert Decimal(nanos) / NANOS == Decimal(text)


@given(st.lists(st.tuples(TOKENS, PRICES), max_size=4))
def test_a_cost_is_exact_and_rounded_up_once(parts: list[tuple[int, int]]) -> None:
    exact = sum(tokens * price for tokens, price in parts)
    cost = cost_nanos(tuple(parts))
    assert 0 <= cost * 1_000_000 - exact < 1_000_000


def test_parts_that_round_up_alone_round_up_once_together() -> None:
    assert cost_nanos(((1, 1), (1, 1))) == 1
    assert cost_nanos(((1_000_000, 1), (1, 1))) == 2
    assert cost_nanos(()) == 0
