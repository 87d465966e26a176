"""Prices as people write them, in US dollars a million tokens: trunkline.yaml, the environment, the command line."""

from collections.abc import Mapping

from trunkline_events.money import BadAmount, nanos_from_usd
from trunkline_events.registry import Price

_FIELDS = ("input", "cached_input", "output")


class BadPrice(ValueError):
    """Not a price. The message says what is wrong with it, and how to write it."""


def price_of(text: str) -> Price:
    """`2,8`: input and output; `2,8,0.5`: cached input at a price of its own. Raises BadPrice."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (2, 3):
        raise BadPrice(f"{text!r} is no price; write INPUT,OUTPUT or INPUT,OUTPUT,CACHED, like 2,8 or 2,8,0.5")
    return _price(dict(zip(("input", "output", "cached_input"), parts, strict=False)))


def read_prices(given: object) -> dict[str, Price]:
    """The setting `prices`: a price by `kind/upstream`. Raises BadPrice."""
    if not isinstance(given, Mapping):
        raise BadPrice("it belongs in trunkline.yaml, as a price for each kind/upstream, such as openai/gpt-4o")
    prices: dict[str, Price] = {}
    for name, price in given.items():
        kind, slash, upstream = str(name).partition("/")
        if not (kind and slash and upstream):
            raise BadPrice(f"{name!r} is no model; write kind/upstream, such as openai/gpt-4o")
        try:
            prices[f"{kind}/{upstream}"] = _price(price)
        except BadPrice as error:
            raise BadPrice(f"{name}: {error}") from error
    return prices


def read_ceiling(given: object) -> Price:
    """The setting `price_ceiling`: `30/120`, or input and output by name; never zero. Raises BadPrice."""
    parts = given.split("/") if isinstance(given, str) else []
    if isinstance(given, str) and len(parts) != 2:
        raise BadPrice(f"{given!r} is no ceiling; write input/output, like 30/120")
    price = _price(dict(zip(("input", "output"), parts, strict=True)) if parts else given)
    if price.cached_input is not None:
        raise BadPrice("a ceiling is of input and output alone; write 30/120")
    if not (nanos_from_usd(price.input) and nanos_from_usd(price.output)):
        raise BadPrice("a ceiling of 0 would let calls of unknown price pass for free; write what is dear, like 30/120")
    return price


def _price(given: object) -> Price:
    if not isinstance(given, Mapping) or not {"input", "output"} <= set(given) <= set(_FIELDS):
        raise BadPrice(f'{given!r} is no price; write {{input: "2", cached_input: "0.5", output: "8"}}')
    return Price(**{name: _amount(name, amount) for name, amount in given.items() if amount is not None})


def _amount(name: str, given: object) -> str:
    # YAML makes numbers of what has no quotes; the shortest text of a float is what was written.
    text = str(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else repr(given)
    try:
        nanos_from_usd(text)
    except BadAmount as error:
        raise BadPrice(f"{name}: {error}") from error
    return text
