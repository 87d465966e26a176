"""A month of mixed traffic, decided by the engine itself: what the cost-saving mode costs beside one model for all.

A simulation: no call is made. Each kind of request has its sizes and its bar, the least match score of a model for what
it wants; both ways keep to the same bars. Prices are US dollars a million tokens, of the kinds that providers ask
for a flagship, a middle and a small model, one for reasoning, and one of one's own.
"""

import random
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs
from trunkline_actors.moment import Moment, Request
from trunkline_actors.pricing import UNLISTED, cost_of
from trunkline_actors.ranking import rank
from trunkline_actors.rates import Rates
from trunkline_actors.requests import AUTO, Parsed, Route
from trunkline_actors.shortlist import Shortlists
from trunkline_events.policy import Defaults, Policy
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model, Price, Provider
from trunkline_events.thread import Asked
from trunkline_events.usage import Usage
from trunkline_projections.folds import Gateway
from trunkline_projections.models import Registry
from trunkline_projections.policies import Routing

DAYS = 30
A_DAY = 1_000
PRIMARY = "flagship"
START = 1_795_262_400.0


class Kind(Struct, frozen=True, kw_only=True):
    """One kind of request: how many of a hundred, typical tokens in and out, what it wants and how well."""

    name: str
    share: int
    given: int
    output: int
    wants: tuple[str, ...]
    bar: float
    needs: tuple[str, ...] = ()


KINDS = (
    Kind(name="short questions", share=35, given=150, output=120, wants=("speed",), bar=0.5),
    Kind(name="support answers", share=25, given=1_200, output=250, wants=("precision",), bar=0.6),
    Kind(name="writing", share=15, given=400, output=700, wants=("creativity",), bar=0.7),
    Kind(name="code", share=12, given=3_000, output=900, wants=("reasoning", "precision"), bar=0.8, needs=("tools",)),
    Kind(name="long documents", share=8, given=60_000, output=600, wants=("context", "precision"), bar=0.65),
    Kind(name="hard reasoning", share=5, given=2_000, output=3_000, wants=("reasoning",), bar=0.9),
)


class NoModelPasses(Exception):
    """No model is good enough for this kind of request. Lower its bar, or add a model."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(f"{kind.name}: no model passes the bar of {kind.bar}; lower it, or add a model")


MODELS: tuple[dict[str, Any], ...] = (
    {
        "id": PRIMARY,
        "price": Price(input="2.00", output="8.00", cached_input="0.50"),
        "capabilities": {"reasoning": 0.9, "creativity": 0.9, "precision": 0.9, "speed": 0.5},
        "context_window": 1_000_000,
    },
    {
        "id": "middle",
        "price": Price(input="0.40", output="1.60", cached_input="0.10"),
        "capabilities": {"reasoning": 0.75, "creativity": 0.75, "precision": 0.8, "speed": 0.7},
        "context_window": 1_000_000,
    },
    {
        "id": "small",
        "price": Price(input="0.10", output="0.40", cached_input="0.025"),
        "capabilities": {"reasoning": 0.4, "creativity": 0.5, "precision": 0.6, "speed": 0.9},
        "context_window": 128_000,
    },
    {
        "id": "thinker",
        "price": Price(input="1.10", output="4.40", cached_input="0.275"),
        "capabilities": {"reasoning": 0.95, "creativity": 0.5, "precision": 0.85, "speed": 0.2},
        "context_window": 200_000,
    },
    {
        "id": "own",
        "price": Price(input="0.15", output="0.30"),
        "capabilities": {"reasoning": 0.3, "creativity": 0.6, "precision": 0.45, "speed": 0.6},
        "context_window": 32_000,
    },
)


class Line(Struct, kw_only=True):
    """What the requests of one kind came to, in nano-dollars, and which models the saving mode chose."""

    kind: Kind
    requests: int = 0
    primary_nanos: int = 0
    saving_nanos: int = 0
    chosen: dict[str, int]


def simulate(seed: int = 1) -> list[Line]:
    """A month, request by request: the flagship for all of them, and the cheapest model that passes the bar."""
    draw, rates, shortlists = random.Random(seed), Rates(lambda _kind, _upstream, _now: UNLISTED), Shortlists()
    registry = _registry()
    gateway = Gateway(registry=registry, routing=Routing(version=1, policy=Policy(defaults=Defaults(optimize="cost"))))
    lines = {kind.name: Line(kind=kind, chosen={}) for kind in KINDS}
    for number in range(DAYS * A_DAY):
        kind = draw.choices(KINDS, weights=[one.share for one in KINDS])[0]
        usage = _usage(kind, draw)
        now = START + number * 86_400 / A_DAY
        moment = Moment(
            gateway=gateway,
            rates=rates.at(registry, now),
            log_seq=len(MODELS),
            now=now,
            draw=draw.random(),
            shortlists=shortlists,
        )
        _add(lines[kind.name], usage, _request(kind, usage, AUTO, now), moment)
    return list(lines.values())


def _add(line: Line, usage: Usage, request: Request, moment: Moment) -> None:
    primary = rank(structs.replace(request, parsed=_named(request.parsed, PRIMARY)), moment)
    saving = rank(request, moment)
    if isinstance(primary, Refused) or isinstance(saving, Refused):
        raise NoModelPasses(line.kind)
    chosen = saving.models[0].id
    line.requests += 1
    line.primary_nanos += cost_of(moment.rates[primary.models[0].id], usage)
    line.saving_nanos += cost_of(moment.rates[chosen], usage)
    line.chosen[chosen] = line.chosen.get(chosen, 0) + 1


def _registry() -> Registry:
    models = [Model(provider="cloud", upstream=one["id"], features=["tools"], **one) for one in MODELS]
    return Registry(
        models={model.id: model for model in models},
        providers={"cloud": Provider(id="cloud", kind="openai-compatible")},
        model_seq={model.id: place for place, model in enumerate(models, 1)},
    )


def _usage(kind: Kind, draw: random.Random) -> Usage:
    """Sizes around the typical ones: half to one and a half times."""
    given, output = (round(size * draw.uniform(0.5, 1.5)) for size in (kind.given, kind.output))
    return Usage(input_tokens=given, output_tokens=output)


def _request(kind: Kind, usage: Usage, model: str, now: float) -> Request:
    asked = Asked(
        operation="chat",
        model=model,
        stream=False,
        input_bound=usage.input_tokens * 4,  # bytes of English
        max_tokens=usage.output_tokens,
        features=list(kind.needs),
    )
    route = Route(capabilities=list(kind.wants), min_match=kind.bar)
    return Request(
        request_id="r",
        attempt_id="r-1",
        attempt=1,
        parsed=Parsed(asked=asked, route=route),
        tried=(),
        reply="",
        deadline=now,
    )


def _named(parsed: Parsed, model: str) -> Parsed:
    return structs.replace(parsed, asked=structs.replace(parsed.asked, model=model))


def totals(lines: list[Line]) -> Mapping[str, float]:
    """US dollars of both ways, and the share that is saved."""
    primary, saving = (sum(getattr(line, name) for line in lines) / 1e9 for name in ("primary_nanos", "saving_nanos"))
    return {"primary_usd": primary, "saving_usd": saving, "saved": 1 - saving / primary}
