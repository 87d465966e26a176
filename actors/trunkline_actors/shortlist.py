"""Which models fit what a request needs, as far as that hangs on the registry: worked out once, and kept. Pure.

A thousand models take longer to look at than a decision may take. What they are changes seldom, and requests need much
the same, so the answer is kept for as long as the registry, the rates and the statistics it was made from are the very
same objects.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from trunkline_events.measured import Measured
from trunkline_events.rate import Rate
from trunkline_events.registry import Model, Provider
from trunkline_events.thread import Candidate
from trunkline_projections.models import Registry

from trunkline_actors.capabilities import lacks, match, quality
from trunkline_actors.plan import Needs, fits

FEW = 8
"""So many named models are looked at each time: that costs less than remembering."""
KEPT = 256
"""Needs whose answers are kept, the oldest forgotten first."""

SPEED = "speed"


class Shortlist(Struct, kw_only=True):
    """The models that fit, in their order; how many of the others for which reason, the first of those in full.

    `prices` are nano-dollars a million tokens of input, at its dearest, and of output, of each that fits.
    `smallest` is the smallest context window among those that fit; `providers` are all that serve them.
    """

    wanted: tuple[str, ...]
    fits: list[Model]
    prices: list[tuple[int, int]]
    rejected: list[Candidate]
    reasons: dict[str, int]
    smallest: float
    providers: frozenset[str]
    _qualities: dict[str, float] | None = None

    def qualities(self, measured: Mapping[str, Measured]) -> Mapping[str, float]:
        """How good each model that fits is at what is wanted; worked out once, but for a speed that is measured."""
        if SPEED in self.wanted:
            return {model.id: quality(model, self.wanted, measured.get(model.id)) for model in self.fits}
        if self._qualities is None:
            self._qualities = {model.id: quality(model, self.wanted) for model in self.fits}
        return self._qualities


class World(Struct, frozen=True):
    """What a shortlist is made from, beside the needs."""

    registry: Registry
    rates: Mapping[str, Rate]
    measured: Mapping[str, Measured]


def shortlist(names: Sequence[str] | None, needs: Needs, world: World, most: int) -> Shortlist:
    """Look at the named models, or at all; `most` of those that don't fit are kept in full. Unknown names count not."""
    models = world.registry.models
    fits: list[Model] = []
    rejected: list[Candidate] = []
    reasons: dict[str, int] = {}
    considered = models.values() if names is None else [models[name] for name in names if name in models]
    for model in considered:
        problem = unfit(model, needs, world)
        if problem is None:
            fits.append(model)
            continue
        reasons[problem] = reasons.get(problem, 0) + 1
        if len(rejected) < most:
            rejected.append(Candidate(model=model.id, provider=model.provider, score=None, reason=problem))
    rates = [world.rates[model.id] for model in fits]
    return Shortlist(
        wanted=needs.wanted,
        fits=fits,
        prices=[(max(rate.input_nanos, rate.cached_input_nanos), rate.output_nanos) for rate in rates],
        rejected=rejected,
        reasons=reasons,
        smallest=min((model.context_window or math.inf for model in fits), default=math.inf),
        providers=frozenset(model.provider for model in fits),
    )


def unfit(model: Model, needs: Needs, world: World) -> str | None:
    """Why a model can't serve such requests, in words that count well; None where it can."""
    provider = world.registry.providers.get(model.provider)
    if model.status != "enabled":
        return model.status
    if provider is None:
        return "its provider is not registered"
    if model.id in needs.avoid:
        return "to be avoided"
    if needs.allowed and not any(fits(pattern, model.id) for pattern in needs.allowed):
        return "not for this key"
    if needs.local_only and not provider.local:
        return "not local"
    missing = [f"lacks {name}" for name in needs.features if name not in model.features]
    missing += [f"lacks the tag {name}" for name in needs.tags if name not in model.tags]
    problem = (missing and missing[0]) or leaks(provider, needs)
    if problem:
        return problem
    return _too_weak(model, needs, world) if needs.capabilities or needs.min_match else None


def leaks(provider: Provider, needs: Needs) -> str | None:
    """Why data of such requests must not get to a provider; None where it may."""
    if provider.local:  # what stays here is promised all that can be
        return None
    if needs.local_only:
        return "not local"
    return next((f"its provider does not promise {name}" for name in needs.data if name not in provider.data), None)


def _too_weak(model: Model, needs: Needs, world: World) -> str | None:
    measured = world.measured.get(model.id)
    lacking = lacks(model, dict(needs.capabilities), measured)
    if lacking is not None:
        return f"lacks capability {lacking}"
    if needs.min_match and match(model, needs.wanted, measured) < needs.min_match:
        return "matches too little"
    return None


class Shortlists:
    """Shortlists that were made before. `of` gives what `shortlist` gives."""

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._rates: Mapping[str, Rate] | None = None
        self._measured: Mapping[str, Measured] | None = None
        self._made: dict[tuple[Any, ...], Shortlist] = {}
        self._by_speed: dict[tuple[Any, ...], Shortlist] = {}

    def of(self, names: tuple[str, ...] | None, needs: Needs, world: World, most: int) -> Shortlist:
        if names is not None and len(names) <= FEW:
            return shortlist(names, needs, world, most)
        if world.registry is not self._registry or world.rates is not self._rates:
            self._registry, self._rates = world.registry, world.rates
            self._made.clear()
            self._by_speed.clear()
        made = self._made
        if any(name == SPEED for name, _ in needs.capabilities):  # that is measured, and so may have changed
            made = self._by_speed
            if world.measured is not self._measured:
                self._measured = world.measured
                made.clear()
        key = (names, needs, most)
        known = made.get(key)
        if known is None:
            if len(made) >= KEPT:
                del made[next(iter(made))]
            known = made[key] = shortlist(names, needs, world, most)
        return known
