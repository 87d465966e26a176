"""What an attempt may cost, and what it did cost. Pure: prices in, nano-dollars out.

Price used, in this order: the model's own; the catalogue's; nothing, for a local provider; else the ceiling.
"""

import math
from collections.abc import Callable

from msgspec import Struct
from trunkline_events.money import cost_nanos, nanos_from_usd, usd_from_nanos
from trunkline_events.rate import Rate
from trunkline_events.registry import Model, Price, Provider
from trunkline_events.usage import Usage

Catalogue = Callable[[str, str], Rate | None]
"""(provider kind, upstream model) → its rate, or None where the catalogue does not know it."""


class Listed(Struct, frozen=True, kw_only=True):
    """What a price list says of a model at a time: its rate, None where it has none, sure from `since` until `until`.

    Both are Unix times; at `until` itself it may already be another one.
    """

    rate: Rate | None
    since: float = -math.inf
    until: float = math.inf


UNLISTED = Listed(rate=None)

PriceList = Callable[[str, str, float], Listed]
"""(provider kind, upstream model, Unix time) → what it says of that model at that time."""

FREE = Rate(input_nanos=0, cached_input_nanos=0, output_nanos=0, version="local")
CEILING = Rate(
    input_nanos=30_000_000_000, cached_input_nanos=30_000_000_000, output_nanos=120_000_000_000, version="ceiling"
)
"""$30 and $120 a million tokens: what an unknown price is taken for, dearer than any model in wide use."""


def rate_of(price: Price, version: str) -> Rate:
    """A registered price as a rate. Raises BadAmount; the registry lets no such price in."""
    given = nanos_from_usd(price.input)
    cached = given if price.cached_input is None else nanos_from_usd(price.cached_input)
    return Rate(
        input_nanos=given, cached_input_nanos=cached, output_nanos=nanos_from_usd(price.output), version=version
    )


def version_of(source: str, price: Price) -> str:
    """The version of a price that somebody wrote down, which is the price itself: `override@2/8`, or `…/0.5` cached."""
    amounts = [price.input, price.output, *([] if price.cached_input is None else [price.cached_input])]
    return f"{source}@{'/'.join(usd_from_nanos(nanos_from_usd(amount)) for amount in amounts)}"


OWN = "model@"
"""What the versions of prices begin with that are in the registry."""


def is_in_log(rate: Rate) -> bool:
    """Whether a rate follows from the registry alone, and so from the log."""
    return rate == FREE or rate.version.startswith(OWN)


def price_model(
    model: Model, model_seq: int, provider: Provider, catalogue: Catalogue, ceiling: Rate = CEILING
) -> Rate:
    """The rate that applies to a model. `model_seq`, where it was registered, is the version of its own price."""
    if model.price is not None:
        return rate_of(model.price, f"{OWN}{model_seq}")
    return catalogue(provider.kind, model.upstream) or (FREE if provider.local else ceiling)


def worst_case(rate: Rate, input_bound: int, max_tokens: int) -> int:
    """The most that a call can cost: all input uncached, all output used."""
    return cost_nanos(((input_bound, max(rate.input_nanos, rate.cached_input_nanos)), (max_tokens, rate.output_nanos)))


def affordable_tokens(rate: Rate, input_bound: int, available: int) -> int:
    """The most output tokens that `available` nano-dollars pay for after the input; negative: not even the input."""
    left = available * 1_000_000 - input_bound * max(rate.input_nanos, rate.cached_input_nanos)
    if left < 0:
        return -1
    return left // rate.output_nanos if rate.output_nanos else 2**31


def cost_of(rate: Rate, usage: Usage) -> int:
    """What this usage cost: cached input at its own rate, the rest in full, reasoning as output."""
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    return cost_nanos(
        (
            (usage.input_tokens - cached, rate.input_nanos),
            (cached, rate.cached_input_nanos),
            (usage.output_tokens, rate.output_nanos),
        )
    )
