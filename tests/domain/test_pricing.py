"""What an attempt may cost and what it did cost."""

import pytest
from given import a_model, a_provider, a_rate
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.pricing import (
    CEILING,
    FREE,
    affordable_tokens,
    cost_of,
    price_model,
    rate_of,
    worst_case,
)
from trunkline_events.money import BadAmount
from trunkline_events.rate import Rate
from trunkline_events.registry import Price
from trunkline_events.usage import Usage

TOKENS = st.integers(0, 10**7)
NANOS = st.integers(0, 10**12)
RATES = st.builds(Rate, input_nanos=NANOS, cached_input_nanos=NANOS, output_nanos=NANOS, version=st.just("v"))
LISTED = a_rate(3, 4, version="listed")


def catalogue(kind: str, upstream: str) -> Rate | None:
    return LISTED if (kind, upstream) == ("openai", "known") else None


@pytest.mark.parametrize(
    ("price", "cached"), [(Price(input="2", output="8"), 2), (Price(input="2", output="8", cached_input="0.5"), 0.5)]
)
def test_a_price_is_dollars_a_million_tokens_and_cached_input_costs_as_input_unless_said(
    price: Price, cached: float
) -> None:
    assert rate_of(price, "v") == Rate(
        input_nanos=2_000_000_000, cached_input_nanos=int(cached * 1e9), output_nanos=8_000_000_000, version="v"
    )


def test_a_price_that_is_no_amount_is_no_rate() -> None:
    with pytest.raises(BadAmount):
        rate_of(Price(input="x", output="1"), "v")


def test_a_models_own_price_comes_first_and_its_version_is_where_it_was_registered() -> None:
    model = a_model(upstream="known", price=Price(input="0", output="0"))
    rate = price_model(model, 17, a_provider(kind="openai"), catalogue)
    assert (rate.input_nanos, rate.version) == (0, "model@17")


def test_then_the_catalogues_price_even_where_the_provider_is_local() -> None:
    assert price_model(a_model(upstream="known"), 1, a_provider(kind="openai"), catalogue) == LISTED


def test_then_nothing_for_a_local_provider() -> None:
    assert price_model(a_model(), 1, a_provider(local=True), catalogue) == FREE


def test_else_the_ceiling() -> None:
    assert price_model(a_model(), 1, a_provider(local=False), catalogue) == CEILING
    own = a_rate(1, 1)
    assert price_model(a_model(), 1, a_provider(local=False), catalogue, ceiling=own) == own


def test_cached_input_costs_its_own_rate_and_reasoning_counts_as_output_already() -> None:
    usage = Usage(input_tokens=10, cached_input_tokens=4, output_tokens=5, reasoning_tokens=5)
    assert cost_of(a_rate(10, 100, cached=1), usage) == 6 * 10 + 4 * 1 + 5 * 100


def test_a_provider_that_counts_more_cached_than_input_gets_no_negative_rest() -> None:
    assert cost_of(a_rate(10, 0, cached=1), Usage(input_tokens=3, cached_input_tokens=9)) == 3


@given(RATES, TOKENS, TOKENS, st.integers(0, 10**7))
def test_no_usage_within_its_bounds_costs_more_than_the_worst_case(
    rate: Rate, given: int, output: int, cached: int
) -> None:
    usage = Usage(input_tokens=given, cached_input_tokens=min(cached, given), output_tokens=output)
    assert 0 <= cost_of(rate, usage) <= worst_case(rate, given, output)


@given(RATES, TOKENS, st.integers(-(10**18), 10**18))
def test_what_is_affordable_fits_and_one_token_more_does_not(rate: Rate, bound: int, available: int) -> None:
    tokens = affordable_tokens(rate, bound, available)
    if tokens < 0:
        assert worst_case(rate, bound, 0) > available
    else:
        assert worst_case(rate, bound, tokens) <= available
        assert not rate.output_nanos or worst_case(rate, bound, tokens + 1) > available


def test_free_output_is_affordable_without_end() -> None:
    assert affordable_tokens(a_rate(1, 0), 5, 5) == 2**31
    assert affordable_tokens(FREE, 5, 0) == 2**31
