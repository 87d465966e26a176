"""What the registered models cost at a time: asked for every request, worked out anew when a price can have changed."""

import math
from collections.abc import Iterator, Mapping

from msgspec import structs
from trunkline_events.rate import Rate
from trunkline_events.registry import Model
from trunkline_projections.models import Registry

from trunkline_actors.pricing import CEILING, Listed, PriceList, price_model


class Rates:
    """The rate of each model, from its own price, a price list, its provider or the ceiling, as `price_model` has it.

    While the registry is the same object and no price list can say anything else, `at` returns the same mapping and
    costs two comparisons.
    """

    def __init__(self, prices: PriceList, ceiling: Rate = CEILING) -> None:
        self._prices, self._ceiling = prices, ceiling
        self._registry: Registry | None = None
        self._since = self._until = 0.0
        self._rates: Mapping[str, Rate] = {}

    def at(self, registry: Registry, now: float) -> Mapping[str, Rate]:
        """Rates at this Unix time by model id, of canaries by `id@version`, where their providers are registered."""
        # Not only `until`: a clock that was set back must not keep a price of the future.
        if registry is self._registry and self._since <= now < self._until:
            return self._rates
        quotes = _Quotes(self._prices, now)
        rates = {
            name: price_model(
                model, registry.model_seq[model.id], registry.providers[model.provider], quotes, self._ceiling
            )
            for name, model in versions_of(registry)
            if model.provider in registry.providers
        }
        if rates != self._rates:
            self._rates = rates
        self._registry, self._since, self._until = registry, quotes.since, quotes.until
        return self._rates

    def listed(self, kind: str, upstream: str, now: float) -> Rate | None:
        """What the price list says of a model at this Unix time, registered or not."""
        return self._prices(kind, upstream, now).rate


def versions_of(registry: Registry) -> Iterator[tuple[str, Model]]:
    """Every model, and every canary as the model that it may become."""
    for model in registry.models.values():
        yield model.id, model
        canary = model.canary
        if canary is not None:
            as_model = structs.replace(model, provider=canary.provider, upstream=canary.upstream, price=canary.price)
            yield f"{model.id}@{canary.version}", as_model


class _Quotes:
    """A price list at one time, which remembers how long all that it was asked for is sure to hold."""

    def __init__(self, prices: PriceList, now: float) -> None:
        self._prices, self._now = prices, now
        self.since, self.until = -math.inf, math.inf

    def __call__(self, kind: str, upstream: str) -> Rate | None:
        found = self._prices(kind, upstream, self._now)
        self.since, self.until = max(self.since, found.since), min(self.until, found.until)
        return found.rate


def overridden(own: Mapping[str, Rate], prices: PriceList) -> PriceList:
    """A price list in which `own`, by `kind/upstream`, comes before `prices`, whatever the time."""
    fixed = {name: Listed(rate=rate) for name, rate in own.items()}

    def look(kind: str, upstream: str, now: float) -> Listed:
        return fixed.get(f"{kind}/{upstream}") or prices(kind, upstream, now)

    return look
