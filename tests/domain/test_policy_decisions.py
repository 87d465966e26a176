"""Decisions about the policy, its history, and what follows from one: who depends on what, and how two compare."""

from typing import Any

import msgspec
import pytest
from given import NOON, a_model, a_registry, recorded
from hypothesis import assume, given
from hypothesis import strategies as st
from policy_kit import MODELS, TAGS, documents
from trunkline_actors import policies
from trunkline_actors.policies import Standing
from trunkline_actors.policy_checks import problems
from trunkline_actors.policy_diff import diff
from trunkline_events.envelope import Unknown
from trunkline_events.policy import OverrideCleared, OverrideSet, Policy, PolicyPublished, PolicyRolledBack
from trunkline_events.refusal import Refused
from trunkline_projections.models import Registry
from trunkline_projections.policies import EMPTY, History, Override, Routing

REGISTRY = a_registry(
    a_model("m1", tags=["fast", "cheap"]), a_model("m2", tags=["fast"]), a_model("m/3 ü", status="disabled")
)
FIRST = {"rules": [{"name": "a", "use": ["m1"]}]}


def policy_of(document: dict[str, Any]) -> Policy:
    policy, found = policies.check(document, REGISTRY, {"builtin"})
    assert not found, found
    return policy


def standing(routing: Routing = EMPTY, registry: Registry = REGISTRY) -> Standing:
    return Standing(routing=routing, registry=registry, analyzers=frozenset({"builtin"}))


def at_version(number: int, document: dict[str, Any]) -> Routing:
    return Routing(version=number, policy=policy_of(document), sequence=number)


# -- any document ------------------------------------------------------------------------------------------------------


@given(documents())
def test_any_policy_that_may_be_published_is_the_same_when_it_was_stored(document: dict[str, Any]) -> None:
    given_as = msgspec.json.decode(msgspec.json.encode(document))
    policy = policy_of(given_as)
    event = PolicyPublished(version=1, policy=policy)
    assert msgspec.json.decode(msgspec.json.encode(event), type=PolicyPublished).policy == policy
    shown = msgspec.json.decode(msgspec.json.encode(policy))
    assert policy_of(shown) == policy
    assert msgspec.json.decode(msgspec.json.encode(policy_of(shown))) == shown
    assert policies.publish(standing(Routing(version=1, policy=policy)), shown, 1, None) is None


@given(documents())
def test_a_policy_does_not_differ_from_itself(document: dict[str, Any]) -> None:
    assert diff(policy_of(document), policy_of(document)).empty


@given(documents(), documents())
def test_what_differs_is_all_that_it_takes_to_make_one_of_the_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = policy_of(one), policy_of(other)
    told = diff(before, after)
    rules = {rule.name: msgspec.to_builtins(rule) for rule in before.rules}
    for gone in told.removed:
        del rules[gone.name]
    for changed in told.changed:
        for path, change in changed.fields.items():
            put(rules[changed.name], path, change.after)
    rules |= {rule.name: msgspec.to_builtins(rule) for rule in told.added}
    order = [rule.name for rule in after.rules]
    whole = msgspec.to_builtins(msgspec.structs.replace(before, rules=[]))
    for path, change in told.fields.items():
        put(whole, path, change.after)
    made, _ = policies.read({**whole, "rules": [rules[name] for name in order]})
    assert without_empty(msgspec.to_builtins(made)) == without_empty(msgspec.to_builtins(after))
    moved = {rule.name for rule in told.moved}
    stayed = [rule.name for rule in before.rules if rule.name in rules and rule.name not in moved]
    assert stayed == [name for name in order if name in stayed], "what did not move is in the same order"


def without_empty(value: Any) -> Any:
    """The same without fields that say nothing: no conditions, no names."""
    if isinstance(value, dict):
        inner = {name: without_empty(one) for name, one in value.items()}
        return {name: one for name, one in inner.items() if one not in ({}, [])}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


def put(document: dict[str, Any], path: str, value: Any) -> None:
    """Change one field, as a difference names it: names that are no plain words are in brackets, and quoted."""
    head, dot, rest = path.partition(".") if not path.startswith("[") else ("", "", path)
    name, bracket, inside = head.partition("[") if head else ("", "[", rest[1:])
    if bracket and name:
        put(document.setdefault(name, {}), f"[{inside}", value)
    elif bracket:
        assign(document, msgspec.json.decode(inside.removesuffix("]").encode()), value)
    elif dot:
        put(document.setdefault(name, {}), rest, value)
    else:
        assign(document, name, value)


def assign(document: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        document.pop(name, None)
    else:
        document[name] = value


@given(st.permutations(range(6)))
def test_as_few_rules_as_may_be_are_said_to_have_moved(order: list[int]) -> None:
    rules = [{"name": str(number)} for number in range(6)]
    told = diff(policy_of({"rules": rules}), policy_of({"rules": [rules[place] for place in order]}))
    assert [told.added, told.removed, told.changed, told.fields] == [[], [], [], {}]
    assert all(order[rule.after] == rule.before == int(rule.name) for rule in told.moved)
    most = max(len(chain) for chain in rising(order))
    assert len(told.moved) == 6 - most


def rising(numbers: list[int]) -> list[list[int]]:
    chains: list[list[int]] = [[]]
    for number in numbers:
        chains += [[*chain, number] for chain in chains if not chain or chain[-1] < number]
    return chains


def test_every_field_that_changed_is_named() -> None:
    before = policy_of(
        {"rules": [{"name": "a", "when": {"stream": True}, "weights": {"m1": 1}}], "analyzer": "builtin"}
    )
    after = policy_of(
        {"rules": [{"name": "a", "when": {"stream": False, "tags": ["t"]}, "weights": {"m1": 2, "m/3 ü": 1}}]}
    )
    told = msgspec.to_builtins(diff(before, after))
    assert told["changed"] == [
        {
            "name": "a",
            "fields": {
                "when.stream": {"from": True, "to": False},
                "when.tags": {"from": None, "to": ["t"]},
                "weights.m1": {"from": 1.0, "to": 2.0},
                'weights["m/3 ü"]': {"from": None, "to": 1.0},
            },
        }
    ]
    assert told["fields"] == {"analyzer": {"from": "builtin", "to": None}}


# -- publishing and rolling back ---------------------------------------------------------------------------------------


def test_a_policy_is_published_under_the_next_number() -> None:
    assert policies.publish(standing(), FIRST, None, "why") == PolicyPublished(
        version=1, policy=policy_of(FIRST), reason="why"
    )
    later = policies.publish(standing(at_version(4, FIRST)), {}, 4, None)
    assert later == PolicyPublished(version=5, policy=Policy())


def test_an_empty_policy_is_something_new_where_none_was_published() -> None:
    assert policies.publish(standing(), {}, 0, None) == PolicyPublished(version=1, policy=Policy())


def test_a_bad_policy_is_refused() -> None:
    refusal = policies.publish(standing(), {"rules": 1}, None, None)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param) == ("invalid_request", "rules")


def test_what_says_the_same_in_other_words_is_in_force_already() -> None:
    one, other = {"rules": [{"name": "a"}]}, {"rules": [{"name": "a", "require": {"capabilities": {}}, "when": {}}]}
    assert policies.publish(standing(at_version(4, one)), other, None, None) is None


def test_what_is_in_force_is_not_published_again() -> None:
    assert policies.publish(standing(at_version(4, FIRST)), FIRST, None, "again") is None


def test_a_base_that_is_not_in_force_is_a_conflict_whatever_else_is_wrong() -> None:
    refusal = policies.publish(standing(at_version(4, FIRST)), {"rules": 1}, 3, None)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param, refusal.metadata) == ("conflict", "base", {"version": 4})


def test_an_earlier_policy_is_in_force_again_under_a_number_of_its_own() -> None:
    done = policies.roll_back(standing(at_version(4, {})), 2, policy_of(FIRST), "why", force=False)
    assert done == PolicyRolledBack(version=5, to=2, policy=policy_of(FIRST), reason="why")


def test_rolling_back_to_what_is_in_force_changes_nothing() -> None:
    assert policies.roll_back(standing(at_version(4, FIRST)), 2, policy_of(FIRST), None, force=False) is None


def test_an_earlier_policy_that_names_what_has_gone_needs_force() -> None:
    now = standing(at_version(4, {}), a_registry())
    refusal = policies.roll_back(now, 2, policy_of(FIRST), None, force=False)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param) == ("invalid_request", "rules[0].use[0]")
    assert refusal.message.startswith("version 2 can't be used as it is: rules[0].use[0]: no model has the id")
    assert isinstance(policies.roll_back(now, 2, policy_of(FIRST), None, force=True), PolicyRolledBack)


# -- overriding --------------------------------------------------------------------------------------------------------


def overridden(model: str = "m1", until: float | None = None) -> Routing:
    return Routing(override=Override(model=model, until=until))


def test_an_override_is_set_and_cleared() -> None:
    assert policies.force(standing(), "m1", NOON + 60, "why", NOON) == OverrideSet(
        model="m1", until=NOON + 60, reason="why"
    )
    assert policies.release(standing(overridden()), "why", NOON) == OverrideCleared(reason="why")


def test_the_same_override_again_changes_nothing_and_another_does() -> None:
    now = standing(overridden(until=NOON + 60))
    assert policies.force(now, "m1", NOON + 60, None, NOON) is None
    assert isinstance(policies.force(now, "m1", NOON + 61, None, NOON), OverrideSet)
    assert isinstance(policies.force(now, "m2", NOON + 60, None, NOON), OverrideSet)


@pytest.mark.parametrize("routing", [EMPTY, overridden(until=NOON)])
def test_there_is_nothing_to_clear_where_there_is_none_or_it_is_over(routing: Routing) -> None:
    assert policies.release(standing(routing), None, NOON) is None
    assert policies.shown_override(routing, NOON) is None


def test_an_override_is_shown_with_its_end() -> None:
    shown = policies.shown_override(overridden(until=NOON + 1), NOON)
    assert shown == {"model": "m1", "until": "2026-11-21T12:00:01.000000Z", "reason": None}


@pytest.mark.parametrize(
    ("model", "until", "code", "param"),
    [
        ("m9", None, "model_not_found", "model"),
        ("m/3 ü", None, "conflict", "model"),
        ("m1", NOON, "invalid_request", "until"),
        ("m1", NOON + 400 * 86_400, "invalid_request", "until"),
    ],
)
def test_an_override_that_can_not_serve_is_refused(model: str, until: float | None, code: str, param: str) -> None:
    refusal = policies.force(standing(), model, until, None, NOON)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param) == (code, param)


@pytest.mark.parametrize(
    ("for_s", "until", "end"),
    [
        (None, None, None),
        (60, None, NOON + 60),
        (None, NOON + 5, NOON + 5),
        (None, "2026-11-21T13:00:05+01:00", NOON + 5),
    ],
)
def test_an_override_ends_so_many_seconds_from_now_or_at_a_time(
    for_s: float | None, until: float | str | None, end: float | None
) -> None:
    assert policies.end_of(for_s, until, NOON) == end


@pytest.mark.parametrize(
    ("for_s", "until", "param"),
    [(0, None, "for_s"), (1e9, None, "for_s"), (1, 1, "until"), (None, "soon", "until"), (None, "2026-11-21", "until")],
)
def test_an_end_that_is_none_is_refused(for_s: float | None, until: float | str | None, param: str) -> None:
    refusal = policies.end_of(for_s, until, NOON)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param) == ("invalid_request", param)


# -- who depends on what -----------------------------------------------------------------------------------------------


def test_models_named_by_id_are_depended_on_and_those_to_be_avoided_are_not() -> None:
    policy = policy_of(
        {
            "rules": [
                {"name": "a", "use": ["m1", "m2"], "fallbacks": ["m1"], "require": {"avoid": ["m/3 ü"]}},
                {"name": "b", "weights": {"m/3 ü": 1}},
            ],
            "defaults": {"fallbacks": ["m2"]},
        }
    )
    assert policies.models_named(policy, REGISTRY) == {
        "m1": ["rules[0].use[0]", "rules[0].fallbacks[0]"],
        "m2": ["rules[0].use[1]", "defaults.fallbacks[0]"],
        "m/3 ü": ['rules[1].weights["m/3 ü"]'],
    }


def test_the_last_model_that_serves_a_tag_is_depended_on() -> None:
    policy = policy_of({"rules": [{"name": "a", "use": ["fast", "cheap"], "require": {"tags": ["cheap"]}}]})
    assert policies.models_named(policy, REGISTRY) == {"m1": ["rules[0].use[1]", "rules[0].require.tags[0]"]}
    one_left = a_registry(a_model("m1", tags=["fast"], status="disabled"), a_model("m2", tags=["fast"]))
    assert policies.models_named(policy, one_left) == {"m2": ["rules[0].use[0]"]}
    none_serves = a_registry(a_model("m1", tags=["fast"], status="disabled"))
    assert policies.models_named(policy, none_serves) == {"m1": ["rules[0].use[0]"]}
    assert policies.models_named(policy, a_registry()) == {}


@given(documents(), st.sampled_from(MODELS))
def test_a_model_that_nothing_depends_on_can_go(document: dict[str, Any], model: str) -> None:
    policy = policy_of(document)
    assume(model not in policies.models_named(policy, REGISTRY))
    left = a_registry(*(one for one in REGISTRY.models.values() if one.id != model))
    told = [problem.path for problem in problems(policy, left, {"builtin"})]
    assert all(".avoid[" in path for path in told)
    assert set(TAGS) == {tag for one in REGISTRY.models.values() for tag in one.tags}


# -- the history -------------------------------------------------------------------------------------------------------


def test_the_history_holds_every_version_and_what_is_in_force() -> None:
    history = History()
    first, second = policy_of(FIRST), Policy()
    facts: list[Any] = [
        PolicyPublished(version=1, policy=first, reason="why"),
        OverrideSet(model="m1"),
        PolicyPublished(version=2, policy=second),
        PolicyRolledBack(version=3, to=1, policy=first),
        OverrideCleared(),
    ]
    for sequence, fact in enumerate(facts, 10):
        history.happened(recorded(fact, sequence, "routing", "policy"))
    assert history.sequence == 14
    assert history.routing == Routing(version=3, policy=first, sequence=14)
    shown = [(one.version, one.sequence, one.kind, one.to, one.rules) for one in history.versions.values()]
    assert shown == [(1, 10, "published", None, 1), (2, 12, "published", None, 0), (3, 13, "rolled-back", 1, 1)]
    assert (history.versions[1].by, history.versions[1].reason, history.versions[1].time) == ("test", "why", NOON)
    assert history.done == {f"e{sequence}": sequence for sequence in range(10, 15)}


def test_an_event_that_can_not_be_read_is_remembered() -> None:
    history = History()
    event = msgspec.structs.replace(
        recorded(OverrideCleared(), 7, "routing", "policy"), body=Unknown("policy.published.v9", b"{}", "new")
    )
    history.happened(event)
    assert (history.unreadable, history.sequence) == (7, 7)
    assert history.routing == EMPTY
