"""What a request is to be served by, before anybody looks which models can: in which order, and under what conditions.

In order of force: what an operator forces, the model or the wishes of the request itself, the rule of the policy that
fits it, what its thread prefers, and then `auto`. Conditions of all of them add up. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from trunkline_events.money import nanos_from_usd
from trunkline_events.policy import Optimize, Policy, Require, Rule, When
from trunkline_events.thread import Asked
from trunkline_projections.folds import Gateway
from trunkline_projections.models import Registry

from trunkline_actors.analyzer import wanted as wanted_by_hints
from trunkline_actors.capabilities import wanted_of
from trunkline_actors.requests import AUTO, NO_WISHES, Parsed, Route

T = TypeVar("T")

FIRST = {
    "cost": "cheapest first",
    "latency": "fastest first",
    "quality": "best match first",
    "balanced": "best balance first",
    "round_robin": "round robin",
    "least_busy": "least busy first",
}
"""Why a model has its place where a strategy gave it."""


class Needs(Struct, frozen=True):
    """What every candidate must have or be. `wanted` are the capabilities that the match score counts.

    `allowed`, where it is not empty, are the models that count, or patterns of them.
    """

    features: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, float], ...] = ()
    wanted: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    local_only: bool = False
    min_match: float = 0.0


class Stage(Struct, frozen=True):
    """Models that come before those of the next stage: named ones, or all. Without `optimize`, in the order named."""

    names: tuple[str, ...] | None
    why: str
    optimize: Optimize | None = None
    weights: tuple[tuple[str, float], ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """How candidates are to be found. `guessed` are capabilities that only a hint asks for: nice to have."""

    stages: tuple[Stage, ...]
    needs: Needs
    fallbacks: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    max_cost_nanos: int | None = None
    override: str | None = None
    rule: str | None = None
    percentile: int = 50
    clamp: bool | None = None


class Given(Struct, frozen=True, kw_only=True):
    """What a plan is made from, beside the gateway's state."""

    parsed: Parsed
    thread: str
    key: str
    default_model: str | None
    preferences: Mapping[str, Any]
    forced: str | None
    """The model that this process was told to use."""
    now: float


def make(given: Given, gateway: Gateway) -> Plan:
    """The plan for a request, under the policy and the override in force."""
    policy, asked, route = gateway.routing.policy, given.parsed.asked, given.parsed.route
    prefers = preferences_of(given.preferences)
    rule = rule_for(policy, given)
    defaults = policy.defaults
    requires = [defaults.require] if rule is None else [defaults.require, rule.require]
    registry = gateway.registry
    of_rule, of_all = (resolved(one.fallbacks, registry) if one else [] for one in (rule, defaults))
    fallbacks = _first(route.fallbacks, of_rule, prefers.fallbacks, of_all)
    override = given.forced or gateway.routing.forced(given.now)
    guessed = tuple(wanted_by_hints(asked.hints, policy)) if asked.hints else ()
    if override is not None:
        stages: tuple[Stage, ...] = (Stage((override,), "forced by an operator"),)
    elif asked.model != AUTO:
        stages = (Stage((asked.model,), "asked for"), Stage(tuple(fallbacks), "fallback"))
    else:
        stages = _stages(given, prefers, rule, policy, fallbacks, registry)
    of_policy = rule.min_match if rule and rule.min_match is not None else defaults.min_match
    minimum = max(of_policy or 0.0, route.min_match or prefers.min_match or 0.0)
    return Plan(
        stages=tuple(stage for stage in stages if stage.names is None or stage.names),
        needs=_needs(asked, [route, prefers], requires, registry, minimum),
        fallbacks=() if override is not None else tuple(fallbacks),
        guessed=guessed if asked.model == AUTO else (),
        max_cost_nanos=_least_cost(given.parsed, prefers, requires),
        override=override,
        rule=rule.name if rule else None,
        percentile=defaults.percentile,
        clamp=route.clamp if route.clamp is not None else prefers.clamp,
    )


def _stages(
    given: Given, prefers: Route, rule: Rule | None, policy: Policy, fallbacks: list[str], registry: Registry
) -> tuple[Stage, ...]:
    """The stages of a request that leaves the choice to us."""
    route, defaults = given.parsed.route, policy.defaults
    optimize = route.optimize or (rule.optimize if rule else None)
    stages = [Stage(tuple(route.prefer), "preferred")]
    if rule is not None and rule.weights and route.optimize is None:
        stages.append(Stage(tuple(rule.weights), "weighted split", weights=tuple(rule.weights.items())))
    elif rule is not None and (rule.use or rule.weights):
        names = tuple(resolved(rule.use or rule.weights, registry))
        stages.append(Stage(names, FIRST[optimize] if optimize else "as the policy has it", optimize))
    else:
        if given.default_model is not None:
            stages.append(Stage((given.default_model,), "the thread's model"))
        stages.append(Stage(tuple(prefers.prefer), "preferred by the thread"))
        optimize = optimize or prefers.optimize or defaults.optimize or "cost"
        stages.append(Stage(None, FIRST[optimize], optimize))
    return (*stages, Stage(tuple(fallbacks), "fallback"))


def resolved(names: Iterable[str], registry: Registry) -> list[str]:
    """Model ids for what a policy names: ids, or tags, which stand for all models that carry them."""
    found: dict[str, None] = {}
    for name in names:
        if name in registry.models:
            found[name] = None
        else:
            found.update(dict.fromkeys(model.id for model in registry.models.values() if name in model.tags))
    return list(found)


def _needs(asked: Asked, routes: list[Route], requires: list[Require], registry: Registry, min_match: float) -> Needs:
    capabilities: dict[str, float] = {}
    own = next((route.capabilities for route in routes if route.capabilities), [])
    for more in (own, *(require.capabilities for require in requires)):
        for name, least in wanted_of(more).items():
            capabilities[name] = max(least, capabilities.get(name, 0.0))
    sources: list[Route | Require] = [*routes, *requires]
    plain = sources[0] is NO_WISHES is sources[1] and not min_match
    if plain and len(sources) == 3 and sources[2] == _NO_REQUIREMENTS:
        return Needs(features=tuple(asked.features), allowed=tuple(asked.allowed))  # most requests
    return Needs(
        features=tuple(asked.features),
        capabilities=tuple(capabilities.items()),
        wanted=tuple(capabilities),
        tags=_union(one.tags for one in sources),
        data=_union(one.data for one in sources),
        avoid=_union([*(one.avoid for one in routes), *(resolved(one.avoid, registry) for one in requires)]),
        allowed=tuple(asked.allowed),
        local_only=any(one.local_only for one in sources),
        min_match=min_match,
    )


_NO_REQUIREMENTS = Require()


def _least_cost(parsed: Parsed, prefers: Route, requires: list[Require]) -> int | None:
    limits = [parsed.max_cost_nanos] if parsed.max_cost_nanos is not None else []
    others: list[Route | Require] = [prefers, *requires]
    limits += [nanos_from_usd(one.max_cost_usd) for one in others if one.max_cost_usd is not None]
    return min(limits) if limits else None


def _union(lists: Iterable[list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))


def _first(*lists: list[str]) -> list[str]:
    return next((names for names in lists if names), [])


def preferences_of(given: Mapping[str, Any]) -> Route:
    """A thread's preferences as the wishes of a request; those of an older version that make no sense are none."""
    if not given:
        return NO_WISHES
    try:
        return msgspec.convert(given, Route)
    except msgspec.ValidationError:
        return NO_WISHES


# -- which rule fits ---------------------------------------------------------------------------------------------------


def rule_for(policy: Policy, given: Given) -> Rule | None:
    """The rule that counts for this request: the first that fits."""
    return next((rule for rule in policy.rules if applies(rule.when, given)), None)


def applies(when: When, given: Given) -> bool:
    """Whether a rule is for this request: everything that it names fits."""
    asked, route = given.parsed.asked, given.parsed.route
    return (
        (when.operation is None or when.operation == asked.operation)
        and (when.stream is None or when.stream == asked.stream)
        and (when.model is None or fits(when.model, asked.model))
        and (when.thread is None or fits(when.thread, given.thread))
        and (when.key is None or fits(when.key, given.key))
        and (when.min_input_tokens is None or asked.input_bound >= when.min_input_tokens)
        and (when.max_input_tokens is None or asked.input_bound <= when.max_input_tokens)
        and all(name in wanted_of(route.capabilities) for name in when.capabilities)
        and all(name in asked.features for name in when.features)
        and all(name in route.tags for name in when.tags)
        and all(name in asked.hints for name in when.hints)
    )


def fits(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says, in which `*` stands for any text and everything else for itself.

    Each piece is taken where it is found first, so that it takes no longer than the pattern and the text are long.
    """
    first, *pieces = pattern.split("*")
    if not pieces:
        return pattern == text
    *between, last = pieces
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for piece in between:
        place = text.find(piece, place, end)
        if place < 0:
            return False
        place += len(piece)
    return True
