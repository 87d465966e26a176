"""Puts models that can all serve a request in order, by price, speed, fit, load or turn. Pure.

A score is lower where a model is better, and never negative. It hangs on no price and no statistics of other models, so
that an order can be checked by what is recorded of the best few.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from trunkline_events.measured import NOTHING, Measured
from trunkline_events.policy import Optimize
from trunkline_events.registry import Model

from trunkline_actors.plan import Stage

PRIOR_MS = 1_000.0
"""What a model takes that nobody measured of late."""
EXPLORE = 0.05
"""The share of requests that go to unmeasured models first, or they would stay so."""
LEAST_SUCCESS = 0.05
"""A model that fails more often than this counts as failing this often, so that its score stays finite."""
QUALITY_WEIGHT = 4.0
"""In the balance a quarter of quality is worth half the price, or half the time."""
BEHIND_ALL = 1e300
"""A score that no model has."""
BLIND = "round robin: no statistics"
NEEDS_STATISTICS = frozenset({"latency", "balanced", "least_busy"})


class Conditions(Struct, frozen=True, kw_only=True):
    """What models are compared by. Tokens are what the request is taken to need, `qualities` how well each fits it.

    `behind` names models that are known to come after all others, whatever they would score.
    """

    tokens_in: int
    tokens_out: int
    qualities: Mapping[str, float]
    measured: Mapping[str, Measured]
    busy: Mapping[str, int]
    draw: float
    turn: int
    percentile: int
    blind: bool | None
    behind: frozenset[str] = frozenset()


class Order(Struct, frozen=True):
    """Scores and the places of the models by them, best first; `why` they have those.

    `blind`: there were no statistics. `turned`: they depend on whose turn it was.
    """

    scores: Sequence[float]
    places: Sequence[int]
    why: str
    blind: bool = False
    turned: bool = False


def order(models: Sequence[Model], prices: Sequence[tuple[int, int]], stage: Stage, conditions: Conditions) -> Order:
    """Put the models of one stage in order. `prices` are nano-dollars a million tokens, in and out, of each."""
    if stage.weights:
        return _by_weight(models, dict(stage.weights), conditions.draw, stage.why)
    if stage.optimize is None:
        places = range(len(models))
        return Order([float(place) for place in places], places, stage.why)
    strategy = stage.optimize
    if strategy in NEEDS_STATISTICS:
        blind = conditions.blind
        if blind is None:
            blind = not any(model.id in conditions.measured for model in models)
        if blind:
            return _sorted(models, _in_turn(models, conditions), conditions, BLIND, blind=True, turned=True)
    scores = _costs(prices, conditions) if strategy == "cost" else _SCORES[strategy](models, prices, conditions)
    return _sorted(models, scores, conditions, stage.why, turned=strategy in _TAKES_TURNS)


_TAKES_TURNS = frozenset({"round_robin", "least_busy"})


def _sorted(
    models: Sequence[Model],
    scores: list[float],
    conditions: Conditions,
    why: str,
    *,
    blind: bool = False,
    turned: bool = False,
) -> Order:
    if conditions.behind:
        pairs = zip(models, scores, strict=True)
        scores = [BEHIND_ALL if model.id in conditions.behind else score for model, score in pairs]
    return Order(scores, sorted(range(len(scores)), key=scores.__getitem__), why, blind, turned)


def _costs(prices: Sequence[tuple[int, int]], conditions: Conditions) -> list[float]:
    """Nano-dollars for what the request is taken to need."""
    given, output = conditions.tokens_in, conditions.tokens_out
    return [(given * price_in + output * price_out) / 1_000_000 for price_in, price_out in prices]


def _latencies(models: Sequence[Model], prices: Sequence[tuple[int, int]], conditions: Conditions) -> list[float]:
    """Milliseconds until an answer is there, the failures before it included."""
    explore = conditions.draw < EXPLORE
    return [_latency(conditions.measured.get(model.id, NOTHING), conditions.percentile, explore) for model in models]


def _latency(measured: Measured, percentile: int, explore: bool) -> float:
    took = measured.p50_ms if percentile == 50 else measured.p95_ms
    if took is None:
        return 0.0 if explore and not measured.calls else PRIOR_MS / max(measured.success, LEAST_SUCCESS)
    return took / max(measured.success, LEAST_SUCCESS)


def _misfits(models: Sequence[Model], prices: Sequence[tuple[int, int]], conditions: Conditions) -> list[float]:
    """What is missing to a perfect fit; of those that fit alike, the cheaper is a trifle better."""
    costs = _costs(prices, conditions)
    return [1.0 - conditions.qualities[model.id] + _trifle(cost) for model, cost in zip(models, costs, strict=True)]


def _trifle(cost: float) -> float:
    """Less than a thousandth, and more for what costs more."""
    return math.log2(cost + 1) / 100_000


def _balances(models: Sequence[Model], prices: Sequence[tuple[int, int]], conditions: Conditions) -> list[float]:
    """Doublings of price and of time, and what is missing in quality."""
    costs, times = _costs(prices, conditions), _latencies(models, prices, conditions)
    return [
        math.log2(cost + 1) + math.log2(time + 1) + QUALITY_WEIGHT * (1 - conditions.qualities[model.id])
        for model, cost, time in zip(models, costs, times, strict=True)
    ]


def _in_turn(models: Sequence[Model], conditions: Conditions) -> list[float]:
    """Places from whose turn it is."""
    return [float((place - conditions.turn) % len(models)) for place in range(len(models))]


def _turns(models: Sequence[Model], prices: Sequence[tuple[int, int]], conditions: Conditions) -> list[float]:
    return _in_turn(models, conditions)


def _loads(models: Sequence[Model], prices: Sequence[tuple[int, int]], conditions: Conditions) -> list[float]:
    """Calls that run, as told by the providers or known here, whichever is more; equals take turns."""
    turns = _in_turn(models, conditions)
    return [
        max(conditions.measured.get(model.id, NOTHING).in_flight, conditions.busy.get(model.id, 0))
        + turn / (len(models) + 1)
        for model, turn in zip(models, turns, strict=True)
    ]


_SCORES: dict[Optimize, Callable[[Sequence[Model], Sequence[tuple[int, int]], Conditions], list[float]]] = {
    "latency": _latencies,
    "quality": _misfits,
    "balanced": _balances,
    "round_robin": _turns,
    "least_busy": _loads,
}


def _by_weight(models: Sequence[Model], weights: Mapping[str, float], draw: float, why: str) -> Order:
    """One model by lot, each in proportion to its weight; then the others, the heaviest first."""
    left = draw * math.fsum(weights[model.id] for model in models)
    drawn = len(models) - 1
    for place, model in enumerate(models):
        left -= weights[model.id]
        if left < 0:
            drawn = place
            break
    places = sorted(range(len(models)), key=lambda place: (place != drawn, -weights[models[place].id]))
    scores = [0.0] * len(models)
    for rank, place in enumerate(places):
        scores[place] = float(rank)
    return Order(scores, places, why)
