"""What is likely not meant in a policy that can be published: rules that never apply, models that take no requests.

Pure.
"""

from collections.abc import Iterable, Iterator

from trunkline_events.policy import Policy, Require, Rule, When
from trunkline_projections.models import Registry

from trunkline_actors.capabilities import STANDARD, wanted_of
from trunkline_actors.plan import fits, resolved
from trunkline_actors.requests import AUTO
from trunkline_actors.shapes import Problem, Vocabulary, at, shown

Found = Iterator[Problem]

_LISTS = ("capabilities", "features", "tags", "hints")
_PATTERNS = ("model", "thread", "key")


def warnings(policy: Policy, registry: Registry) -> list[Problem]:
    """Everything of that sort, in the order of the document as far as may be."""
    known = _Known(registry)
    found = [*_unreachable(policy.rules)]
    for place, rule in enumerate(policy.rules):
        found += _rule(rule, f"rules[{place}]", policy, known)
    found += _named(policy.defaults.fallbacks, "defaults.fallbacks", known)
    found += _require(policy.defaults.require, "defaults.require", known)
    return found


class _Known:
    """What the registry knows by name."""

    def __init__(self, registry: Registry) -> None:
        models, providers = registry.models.values(), registry.providers.values()
        self.registry = registry
        self.models = Vocabulary(registry.models)
        self.tags = Vocabulary(tag for model in models for tag in model.tags)
        self.capabilities = Vocabulary([*STANDARD, *(name for model in models for name in model.capabilities)])
        self.promises = Vocabulary(data for provider in providers for data in provider.data)
        self.local = any(provider.local for provider in providers)
        self.meant: dict[str, list[str]] = {}
        for model in models:
            for tag in model.tags:
                self.meant.setdefault(tag, []).append(model.id)
        self.meant.update((model.id, [model.id]) for model in models)


# -- rules that nothing gets to ----------------------------------------------------------------------------------------


def _unreachable(rules: list[Rule]) -> Found:
    """Rules whose every request an earlier rule takes. Two earlier rules that do so together are not found."""
    masks: list[int] = []
    for place, rule in enumerate(rules):
        mask = _mask(rule.when)
        for earlier, other in enumerate(masks):
            if not other & ~mask and covers(rules[earlier].when, rule.when):
                told = (
                    f"never applies: rules[{earlier}], {shown(rules[earlier].name)}, takes every request that fits it"
                )
                yield Problem(f"rules[{place}]", f"{told}; move it up, or remove it")
                break
        masks.append(mask)


def _mask(when: When) -> int:
    """One bit for each condition: only a rule with fewer of them can take all that another takes."""
    bits = 0
    for number, name in enumerate(When.__struct_fields__):
        value = getattr(when, name)
        if value not in (None, [], "*") and (name, value) != ("min_input_tokens", 0):
            bits |= 1 << number
    return bits


def covers(wide: When, narrow: When) -> bool:
    """Whether every request that fits `narrow` fits `wide`. False where that can't be told from the two alone."""
    for name in _PATTERNS:
        if not _covers_text(getattr(wide, name), getattr(narrow, name)):
            return False
    for name in ("operation", "stream"):
        if getattr(wide, name) not in (None, getattr(narrow, name)):
            return False
    if (wide.min_input_tokens or 0) > (narrow.min_input_tokens or 0):
        return False
    if wide.max_input_tokens is not None and (
        narrow.max_input_tokens is None or narrow.max_input_tokens > wide.max_input_tokens
    ):
        return False
    return all(set(getattr(wide, name)) <= set(getattr(narrow, name)) for name in _LISTS)


def _covers_text(wide: str | None, narrow: str | None) -> bool:
    """Whether one pattern fits all that the other fits. `*` in the narrow one is taken for a letter nobody writes."""
    if wide is None:
        return True
    return fits(wide, "*" if narrow is None else narrow)


# -- names that lead to nothing ----------------------------------------------------------------------------------------


def _rule(rule: Rule, path: str, policy: Policy, known: _Known) -> Found:
    when = rule.when
    if when.hints and policy.analyzer is None:
        told = "never fits: there are no hints without an analyzer; set `analyzer`, to builtin say"
        yield Problem(f"{path}.when.hints", told)
    if when.model is not None and not fits(when.model, AUTO):
        yield from _asked_by_name(rule, when.model, path, known)
    yield from _capabilities(when.capabilities, f"{path}.when.capabilities", known)
    for field in ("use", "fallbacks"):
        yield from _named(getattr(rule, field), f"{path}.{field}", known)
    yield from _named(rule.weights, f"{path}.weights", known, by_name=True)
    yield from _require(rule.require, f"{path}.require", known)


def _asked_by_name(rule: Rule, pattern: str, path: str, known: _Known) -> Found:
    if not any(fits(pattern, model) for model in known.registry.models):
        like = known.models.suggestion(pattern)
        yield Problem(f"{path}.when.model", f"never fits: no model's id is like {shown(pattern)}, nor is auto{like}")
    for field in ("use", "weights", "optimize"):
        if getattr(rule, field):
            told = "says nothing to requests that name their model, and this rule is for no others"
            yield Problem(f"{path}.{field}", f"{told}; let `when.model` fit auto, or leave this out")


def _named(names: Iterable[str], path: str, known: _Known, *, by_name: bool = False) -> Found:
    models = known.registry.models
    for place, name in enumerate(names):
        meant = known.meant.get(name, [])
        if meant and not any(models[model].status == "enabled" for model in meant):
            told = f"model {shown(name)} is {models[name].status}" if name in models else "no model with it is enabled"
            yield Problem(at(path, name if by_name else place), f"takes no requests: {told}")


def _require(require: Require, path: str, known: _Known) -> Found:
    yield from _capabilities(wanted_of(require.capabilities), f"{path}.capabilities", known)
    for place, tag in enumerate(require.tags):
        if tag not in known.tags:
            yield Problem(f"{path}.tags[{place}]", f"no model has the tag {shown(tag)}{known.tags.suggestion(tag)}")
    for place, data in enumerate(require.data):
        if data not in known.promises and not known.local:
            told = f"no provider promises {shown(data)}{known.promises.suggestion(data)}"
            yield Problem(f"{path}.data[{place}]", told)


def _capabilities(names: Iterable[str], path: str, known: _Known) -> Found:
    for name in names:
        if name not in known.capabilities:
            told = f"no model has a score for {shown(name)}{known.capabilities.suggestion(name)}"
            yield Problem(path, told)


# -- who depends on what -----------------------------------------------------------------------------------------------


def models_named(policy: Policy, registry: Registry) -> dict[str, list[str]]:
    """Which models a policy depends on: model id → the paths at which it does.

    A model is depended on where it is named by id, or where it is the last enabled one with a tag that is named, or
    the last one of all where none is enabled. Models to be avoided are not depended on.
    """
    places: dict[str, list[str]] = {}
    for path, name in _places(policy):
        meant = resolved([name], registry)
        if name not in registry.models:
            serving = [model for model in meant if registry.models[model].status == "enabled"]
            meant = serving or meant
        if len(meant) == 1:
            places.setdefault(meant[0], []).append(path)
    return places


def _places(policy: Policy) -> Iterator[tuple[str, str]]:
    """Every path at which a policy names models it wants."""
    for place, rule in enumerate(policy.rules):
        path = f"rules[{place}]"
        for field in ("use", "fallbacks"):
            yield from ((f"{path}.{field}[{number}]", name) for number, name in enumerate(getattr(rule, field)))
        yield from ((at(f"{path}.weights", name), name) for name in rule.weights)
        yield from ((f"{path}.require.tags[{number}]", tag) for number, tag in enumerate(rule.require.tags))
    defaults = policy.defaults
    yield from ((f"defaults.fallbacks[{number}]", name) for number, name in enumerate(defaults.fallbacks))
    yield from ((f"defaults.require.tags[{number}]", tag) for number, tag in enumerate(defaults.require.tags))
