"""List prices from genai-prices: what is known, what is not, and that a tiered price is never taken too low."""

from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from trunkline_actors.catalogue import _PROVIDER_IDS, _nanos, lookup


@pytest.mark.parametrize(
    ("kind", "upstream"),
    [("openai", "gpt-4o"), ("anthropic", "claude-3-5-sonnet-20241022"), ("gemini", "gemini-1.5-pro")],
)
def test_a_well_known_model_has_a_price_with_the_catalogues_version(kind: str, upstream: str) -> None:
    rate = lookup(kind, upstream)
    assert rate is not None
    assert 0 < rate.cached_input_nanos <= rate.input_nanos < rate.output_nanos
    assert rate.version.startswith("genai-prices@")


def test_a_list_price_is_that_of_the_vendor() -> None:
    rate = lookup("openai", "gpt-4o")
    assert rate is not None
    assert (rate.input_nanos, rate.output_nanos) == (2_500_000_000, 10_000_000_000)


@pytest.mark.parametrize(
    ("kind", "upstream"),
    [("openai", "nobody-has-this"), ("scripted", "gpt-4o"), ("openai-compatible", "gpt-4o"), ("ollama", "llama3")],
)
def test_what_the_catalogue_does_not_know_has_no_price(kind: str, upstream: str) -> None:
    assert lookup(kind, upstream) is None


def test_every_model_of_the_vendors_we_know_has_a_sound_price_or_none() -> None:
    for kind, provider_id in _PROVIDER_IDS.items():
        provider = next(one for one in get_snapshot().providers if one.id == provider_id)
        rates = [rate for model in provider.models if (rate := lookup(kind, model.id))]
        assert rates, f"{kind} has prices"
        for rate in rates:
            assert min(rate.input_nanos, rate.cached_input_nanos, rate.output_nanos) >= 0


def test_a_price_in_tiers_counts_at_its_dearest() -> None:
    rate = lookup("gemini", "gemini-1.5-pro")
    assert rate is not None
    assert rate.input_nanos == 2_500_000_000, "above 128,000 tokens it costs twice as much"


def test_a_price_finer_than_a_nano_dollar_is_rounded_up() -> None:
    assert _nanos(Decimal("0.0000000001")) == 1
    assert _nanos(Decimal("1.5")) == 1_500_000_000
    assert _nanos(None) is None
