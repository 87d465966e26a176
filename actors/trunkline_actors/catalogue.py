"""The price catalogue, `genai-prices`: offline, and loaded when first needed, since that takes a moment."""

from decimal import ROUND_CEILING
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from trunkline_actors.pricing import Rate

_PROVIDER_IDS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "openrouter": "openrouter",
    "deepseek": "deepseek",
}
"""Our kinds of provider under the catalogue's names. Others serve who knows what, at who knows what price."""

_NANOS_A_DOLLAR = 1_000_000_000


@lru_cache(maxsize=4096)
def lookup(kind: str, upstream: str) -> Rate | None:
    """The list price of a provider's model; None where the catalogue has none that is a plain price a token.

    Prices in tiers count at their dearest tier: never less than what will be charged.
    """
    provider_id = _PROVIDER_IDS.get(kind)
    if provider_id is None:
        return None
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, model = get_snapshot().find_provider_model(upstream, None, provider_id, None)
    except LookupError:
        return None
    prices = model.prices if not isinstance(model.prices, list) else model.prices[-1].prices
    given, output = _nanos(getattr(prices, "input_mtok", None)), _nanos(getattr(prices, "output_mtok", None))
    if given is None:
        return None
    cached = _nanos(getattr(prices, "cache_read_mtok", None))
    return Rate(
        input_nanos=given,
        cached_input_nanos=given if cached is None else cached,
        output_nanos=output or 0,
        version=f"genai-prices@{version('genai-prices')}",
    )


def _nanos(price: Any) -> int | None:
    if price is None:
        return None
    tiers = getattr(price, "tiers", None)
    if tiers is not None:
        price = max([price.base, *(tier.price for tier in tiers)])
    return int((price * _NANOS_A_DOLLAR).to_integral_value(ROUND_CEILING))
