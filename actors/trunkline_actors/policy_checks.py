"""What is wrong with a policy whose shape is right: names that mean nothing, numbers out of range, rules for nobody.

Problems keep it from being published; warnings don't. Pure.
"""

from collections.abc import Collection, Iterable, Iterator

from trunkline_events.money import BadAmount, nanos_from_usd
from trunkline_events.policy import Policy, Require, Rule, When
from trunkline_events.subjects import NO_THREAD, id_problem
from trunkline_projections.models import Registry

from trunkline_actors.registry import FEATURES
from trunkline_actors.requests import cache_problem
from trunkline_actors.shapes import Problem, Vocabulary, at, shown, suggestion

MOST_TOKENS = 10**12
MOST_WEIGHT = 10**6

Found = Iterator[Problem]


def problems(policy: Policy, registry: Registry, analyzers: Collection[str]) -> list[Problem]:
    """Everything that keeps a policy from being published, in the order of the document."""
    names = _Names(registry)
    found = [problem for place, rule in enumerate(policy.rules) for problem in _rule(rule, f"rules[{place}]", names)]
    found += _twice(policy.rules)
    defaults = policy.defaults
    found += names.unknown(defaults.fallbacks, "defaults.fallbacks")
    found += _require(defaults.require, "defaults.require", names)
    found += _share(defaults.min_match, "defaults.min_match")
    found += _seconds(defaults.cache_s, "defaults.cache_s")
    if policy.analyzer is not None and policy.analyzer not in analyzers:
        known = ", ".join(map(shown, sorted(analyzers)))
        found.append(Problem("analyzer", f"there is no analyzer {shown(policy.analyzer)}; there are {known}"))
    for hint, capabilities in policy.hints.items():
        path = at("hints", hint)
        found += [*_words([hint], path), *_words(capabilities, path)]
    return found


class _Names:
    """What `use` and its like may name."""

    def __init__(self, registry: Registry) -> None:
        self._models = registry.models
        self._tags = {tag for model in registry.models.values() for tag in model.tags}
        self._both = Vocabulary([*self._models, *self._tags])

    def unknown(self, names: Iterable[str], path: str) -> Found:
        """A problem for each that is neither a model's id nor a tag."""
        for place, name in enumerate(names):
            if name not in self._both:
                yield Problem(at(path, place), self._told(name))

    def no_models(self, names: Iterable[str], path: str) -> Found:
        """A problem for each that is no model's id."""
        for name in names:
            if name not in self._models:
                tag = f"{shown(name)} is a tag, and a weight is one model's; name the models by their ids"
                yield Problem(at(path, name), tag if name in self._tags else self._told(name))

    def _told(self, name: str) -> str:
        if "*" in name:
            return f"{shown(name)} is a pattern, and models are named by id or by tag; give them a tag in common"
        like = self._both.suggestion(name) or "; `trunkline models list` shows what there is"
        return f"no model has the id or the tag {shown(name)}{like}"


# -- a rule ------------------------------------------------------------------------------------------------------------


def _rule(rule: Rule, path: str, names: _Names) -> Found:
    yield from _words([rule.name], f"{path}.name", indexed=False)
    yield from _when(rule.when, f"{path}.when")
    if rule.use and rule.weights:
        yield Problem(f"{path}.weights", "a rule has either `use` or `weights`; leave one of them out")
    yield from names.unknown(rule.use, f"{path}.use")
    yield from names.no_models(rule.weights, f"{path}.weights")
    for name, weight in rule.weights.items():
        if not 0 < weight <= MOST_WEIGHT:
            told = f"a weight must be more than 0 and at most {MOST_WEIGHT:,}, not {weight:g}"
            yield Problem(at(f"{path}.weights", name), told)
    yield from names.unknown(rule.fallbacks, f"{path}.fallbacks")
    yield from _require(rule.require, f"{path}.require", names)
    yield from _share(rule.min_match, f"{path}.min_match")
    yield from _seconds(rule.cache_s, f"{path}.cache_s")


def _when(when: When, path: str) -> Found:
    for field in ("capabilities", "tags", "hints"):
        yield from _words(getattr(when, field), f"{path}.{field}")
    for place, feature in enumerate(when.features):
        if feature not in FEATURES:
            told = suggestion(feature, FEATURES) or f"; there are {', '.join(sorted(FEATURES))}"
            yield Problem(f"{path}.features[{place}]", f"{shown(feature)} is not a feature{told}")
    for field in ("model", "thread", "key"):
        pattern = getattr(when, field)
        if pattern is not None:
            yield from _words([pattern], f"{path}.{field}", indexed=False)
    for field in ("min_input_tokens", "max_input_tokens"):
        tokens = getattr(when, field)
        if tokens is not None and not 0 <= tokens <= MOST_TOKENS:
            yield Problem(f"{path}.{field}", f"must be from 0 to {MOST_TOKENS:,} tokens, not {tokens}")
    if (when.min_input_tokens or 0) > (MOST_TOKENS if when.max_input_tokens is None else when.max_input_tokens):
        told = f"no input has at least {when.min_input_tokens} and at most {when.max_input_tokens} tokens; swap them"
        yield Problem(f"{path}.min_input_tokens", told)


def _require(require: Require, path: str, names: _Names) -> Found:
    if require.max_cost_usd is not None:
        try:
            nanos_from_usd(require.max_cost_usd)
        except BadAmount as error:
            yield Problem(f"{path}.max_cost_usd", str(error))
    yield from _words(require.tags, f"{path}.tags")
    yield from _words(require.data, f"{path}.data")
    yield from names.unknown(require.avoid, f"{path}.avoid")
    capabilities = require.capabilities
    if isinstance(capabilities, list):
        yield from _words(capabilities, f"{path}.capabilities")
        return
    for name, least in capabilities.items():
        place = at(f"{path}.capabilities", name)
        yield from _words([name], place, indexed=False)
        yield from _share(least, place)


def _share(number: float | None, path: str) -> Found:
    if number is not None and not 0 <= number <= 1:
        yield Problem(path, f"must be from 0 to 1, not {number:g}")


def _seconds(number: float | None, path: str) -> Found:
    if number is not None and (told := cache_problem(number)):
        yield Problem(path, f"{told}, not {number:g}")


def _words(words: Iterable[str], path: str, *, indexed: bool = True) -> Found:
    """Names of one's own: what could be an id, and `-`, which is the thread of requests without one."""
    for place, word in enumerate(words):
        problem = None if word == NO_THREAD else id_problem(word)
        if problem is not None:
            yield Problem(at(path, place) if indexed else path, problem.replace("an id", "a name"))


def _twice(rules: list[Rule]) -> Found:
    seen: dict[str, int] = {}
    for place, rule in enumerate(rules):
        first = seen.setdefault(rule.name, place)
        if first != place:
            told = f"rules[{first}] has the name {shown(rule.name)} already; give each rule one of its own"
            yield Problem(f"rules[{place}].name", told)
