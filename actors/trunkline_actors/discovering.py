"""Which models can do something, and how well: found by what they declare and by what was measured. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from trunkline_events.measured import Measured
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model
from trunkline_projections.circuits import CLOSED
from trunkline_projections.folds import Gateway

from trunkline_actors.capabilities import STANDARD, lacks, match, score, wanted_of
from trunkline_actors.registry import FEATURES, invalid

MOST = 1000


class Discover(Struct, frozen=True, kw_only=True):
    """What is looked for: everything that is given must be so. `context_window` is the least, in tokens.

    `capability` is one more name beside `capabilities`, which are names, or names with the least score.
    """

    capability: str | None = None
    capabilities: list[str] | dict[str, float] = []
    features: list[str] = []
    tags: list[str] = []
    local_only: bool = False
    context_window: int | None = None
    limit: int = 100

    def wanted(self) -> dict[str, float]:
        """The capabilities, each with the least score."""
        one = {} if self.capability is None else {self.capability: 0.0}
        return {**one, **wanted_of(self.capabilities)}


class Found(Struct, frozen=True, kw_only=True):
    """A model that fits, and how well: `match` is the mean of its scores for what was asked, 1 where nothing was.

    `circuit` is the state of its provider's breaker; `measured` is null where nothing was measured of late.
    """

    model: Model
    match: float
    scores: dict[str, float]
    circuit: str
    measured: Measured | None


def discover(gateway: Gateway, measured: Mapping[str, Measured], asked: Discover) -> tuple[list[Found], int] | Refused:
    """The enabled models that fit, the best match first, and of how many they are the best."""
    if problem := _problem(asked):
        return problem
    wanted = asked.wanted()
    fits = [model for model in gateway.registry.models.values() if _fits(gateway, model, measured.get(model.id), asked)]
    found = [
        Found(
            model=model,
            match=match(model, wanted, measured.get(model.id)),
            scores=_scores(model, wanted, measured.get(model.id)),
            circuit=gateway.circuits.get(model.provider, CLOSED).state,
            measured=measured.get(model.id),
        )
        for model in fits
    ]
    found.sort(key=lambda one: (-one.match, one.model.id))
    return found[: asked.limit], len(found)


def _fits(gateway: Gateway, model: Model, measured: Measured | None, asked: Discover) -> bool:
    provider = gateway.registry.providers.get(model.provider)
    return (
        model.status == "enabled"
        and lacks(model, asked.wanted(), measured) is None
        and set(asked.features) <= set(model.features)
        and set(asked.tags) <= set(model.tags)
        and (not asked.local_only or (provider is not None and provider.local))
        and (asked.context_window is None or (model.context_window or 0) >= asked.context_window)
    )


def _scores(model: Model, wanted: Mapping[str, float], measured: Measured | None) -> dict[str, float]:
    """All that a model scores in: what it declares, what was measured, and what was asked for."""
    names = dict.fromkeys((*STANDARD, *model.capabilities, *wanted))
    scores: dict[str, Any] = {name: score(model, name, measured) for name in names}
    return {name: value for name, value in scores.items() if value or name in wanted}


def _problem(asked: Discover) -> Refused | None:
    for name, least in asked.wanted().items():
        if not name:
            return invalid("a capability must have a name, such as reasoning", "capabilities")
        if not 0 <= least <= 1:
            return invalid(f"capability {name!r} can't score {least}; scores run from 0 to 1", "capabilities")
    unknown = sorted(set(asked.features) - FEATURES)
    if unknown:
        return invalid(f"{unknown[0]!r} is not a feature; there are {', '.join(sorted(FEATURES))}", "features")
    if asked.context_window is not None and asked.context_window < 1:
        return invalid("context_window must be at least 1 token", "context_window")
    if not 1 <= asked.limit <= MOST:
        return invalid(f"limit must be from 1 to {MOST:,}", "limit")
    return None
