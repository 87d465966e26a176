"""Policies as documents: every problem with its place and its reason, and what is doubtful."""

from typing import Any

import pytest
from given import a_model, a_provider, a_registry
from trunkline_actors import policies
from trunkline_actors.policy_warnings import covers
from trunkline_events.policy import When

ANALYZERS = frozenset({"builtin"})
REGISTRY = a_registry(
    a_model("gpt-4", tags=["big", "paid"], capabilities={"reasoning": 0.9}),
    a_model("mini", tags=["fast", "paid"]),
    a_model("old", tags=["legacy"], status="retired"),
    a_model("m/1 ü", tags=["fast"]),
    providers=[a_provider(local=False, data=["eu"])],
)


def rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"name": "r", **fields}]}


def problems_of(document: object) -> list[str]:
    return [str(problem) for problem in policies.check(document, REGISTRY, ANALYZERS)[1]]


def warnings_of(document: dict[str, Any]) -> list[str]:
    policy, found = policies.check(document, REGISTRY, ANALYZERS)
    assert not found
    return [str(warning) for warning in policies.warnings(policy, REGISTRY)]


WORDS = '"balanced", "cost", "latency", "least_busy", "quality", "round_robin"'


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "policy: must be an object, not []"),
        ({"rules": {}}, "rules: must be a list, not {}"),
        ({"rules": [3]}, "rules[0]: must be an object, not 3"),
        ({"rule": []}, 'rule: there is no such field; did you mean "rules"?'),
        ({"zz": 1}, "zz: there is no such field; there are analyzer, defaults, hints, rules"),
        ({"a b\n": 1}, '["a b\\n"]: there is no such field; there are analyzer, defaults, hints, rules'),
        ({"rules": [{}]}, "rules[0].name: must be given"),
        ({"rules": [{"name": None}]}, "rules[0].name: must be text, not null"),
        (rule(when={"tgs": []}), 'rules[0].when.tgs: there is no such field; did you mean "tags"?'),
        (rule(use="gpt-4"), 'rules[0].use: must be a list, not "gpt-4"; write it as a list: ["gpt-4"]'),
        (rule(use=["gpt-4", 4]), 'rules[0].use[1]: must be text, not 4; write it in quotes: "4"'),
        (rule(use=["gpt-9"]), 'rules[0].use[0]: no model has the id or the tag "gpt-9"; did you mean "gpt-4"?'),
        (
            rule(use=["zzz"]),
            'rules[0].use[0]: no model has the id or the tag "zzz"; `trunkline models list` shows what there is',
        ),
        (
            rule(use=["gpt-*"]),
            'rules[0].use[0]: "gpt-*" is a pattern, and models are named by id or by tag; give them a tag in common',
        ),
        (
            rule(fallbacks=["mini", "fsat"]),
            'rules[0].fallbacks[1]: no model has the id or the tag "fsat"; did you mean "fast"?',
        ),
        (
            rule(require={"avoid": ["mni"]}),
            'rules[0].require.avoid[0]: no model has the id or the tag "mni"; did you mean "mini"?',
        ),
        (
            rule(weights={"m/2 ü": 1}),
            'rules[0].weights["m/2 ü"]: no model has the id or the tag "m/2 ü"; did you mean "m/1 ü"?',
        ),
        (
            rule(weights={"fast": 1}),
            'rules[0].weights.fast: "fast" is a tag, and a weight is one model\'s; name the models by their ids',
        ),
        (rule(weights={"mini": 0}), "rules[0].weights.mini: a weight must be more than 0 and at most 1,000,000, not 0"),
        (
            rule(weights={"mini": -1.5}),
            "rules[0].weights.mini: a weight must be more than 0 and at most 1,000,000, not -1.5",
        ),
        (
            rule(weights={"mini": 10**400}),
            "rules[0].weights.mini: is too large a number to be of use; take a smaller one",
        ),
        (rule(weights={"mini": "1"}), 'rules[0].weights.mini: must be a number, not "1"'),
        (rule(weights={"mini": True}), "rules[0].weights.mini: must be a number, not true"),
        (
            rule(use=["mini"], weights={"mini": 1}),
            "rules[0].weights: a rule has either `use` or `weights`; leave one of them out",
        ),
        (rule(optimize="cots"), f'rules[0].optimize: must be one of {WORDS}, not "cots"; did you mean "cost"?'),
        (rule(min_match=1.1), "rules[0].min_match: must be from 0 to 1, not 1.1"),
        (rule(min_match=float("nan")), "rules[0].min_match: must be a number, not NaN"),
        (
            rule(require={"max_cost_usd": 0.05}),
            'rules[0].require.max_cost_usd: must be text, not 0.05; write it in quotes: "0.05"',
        ),
        (
            rule(require={"max_cost_usd": "cheap"}),
            "rules[0].require.max_cost_usd: 'cheap' is not an amount in US dollars; write it like \"0.25\"",
        ),
        (
            rule(require={"capabilities": {"speed": 2}}),
            "rules[0].require.capabilities.speed: must be from 0 to 1, not 2",
        ),
        (rule(require={"capabilities": 1}), "rules[0].require.capabilities: must be an object or a list, not 1"),
        (rule(require={"capabilities": [""]}), "rules[0].require.capabilities[0]: a name must not be empty"),
        (rule(require={"capabilities": {"": 1}}), 'rules[0].require.capabilities[""]: a name must not be empty'),
        (rule(require={"local_only": "yes"}), 'rules[0].require.local_only: must be true or false, not "yes"'),
        (
            rule(when={"features": ["visoin"]}),
            'rules[0].when.features[0]: "visoin" is not a feature; did you mean "vision"?',
        ),
        (
            rule(when={"operation": "chats"}),
            'rules[0].when.operation: must be one of "chat", "embeddings", not "chats"; did you mean "chat"?',
        ),
        (rule(when={"stream": 1}), "rules[0].when.stream: must be true or false, not 1"),
        (rule(when={"model": True}), 'rules[0].when.model: must be text, not true; write it in quotes: "true"'),
        (rule(when={"thread": "a\x00"}), "rules[0].when.thread: a name must not contain control characters"),
        (rule(when={"key": ""}), "rules[0].when.key: a name must not be empty"),
        (rule(when={"hints": ["x" * 129]}), "rules[0].when.hints[0]: a name has at most 128 bytes, this one has 129"),
        (
            rule(when={"min_input_tokens": -1}),
            "rules[0].when.min_input_tokens: must be from 0 to 1,000,000,000,000 tokens, not -1",
        ),
        (rule(when={"max_input_tokens": 1.5}), "rules[0].when.max_input_tokens: must be a whole number, not 1.5"),
        (
            rule(when={"min_input_tokens": 9, "max_input_tokens": 8}),
            "rules[0].when.min_input_tokens: no input has at least 9 and at most 8 tokens; swap them",
        ),
        ({"rules": [{"name": "a\n"}]}, "rules[0].name: a name must not contain control characters"),
        (
            {"rules": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
            'rules[2].name: rules[0] has the name "a" already; give each rule one of its own',
        ),
        ({"defaults": {"percentile": 90}}, "defaults.percentile: must be one of 50, 95, not 90"),
        ({"defaults": {"percentile": True}}, "defaults.percentile: must be one of 50, 95, not true"),
        (
            {"defaults": {"on_content_filter": None}},
            'defaults.on_content_filter: must be one of "fallback", "stop", not null',
        ),
        (
            {"defaults": {"fallbacks": ["x"]}},
            'defaults.fallbacks[0]: no model has the id or the tag "x"; `trunkline models list` shows what there is',
        ),
        ({"defaults": {"min_match": -0.5}}, "defaults.min_match: must be from 0 to 1, not -0.5"),
        (
            {"defaults": {"require": {"tags": ["\t"]}}},
            "defaults.require.tags[0]: a name must not contain control characters",
        ),
        ({"analyzer": "mine"}, 'analyzer: there is no analyzer "mine"; there are "builtin"'),
        ({"hints": {"code": [""]}}, "hints.code[0]: a name must not be empty"),
        ({"hints": {"": []}}, 'hints[""][0]: a name must not be empty'),
        (
            {"hints": {"code": "reasoning"}},
            'hints.code: must be a list, not "reasoning"; write it as a list: ["reasoning"]',
        ),
        (
            {"rules": [{"name": str(number)} for number in range(1001)]},
            "rules: has 1,001 rules; at most 1,000 are taken: name models by tag, and use patterns",
        ),
        ({"hints": {"a": ["b" * 300_000]}}, "policy: has 300,020 bytes as JSON; at most 262,144 are taken"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_problem_is_told_with_its_place_and_its_reason(document: object, told: str) -> None:
    assert problems_of(document) == [told]


def test_all_problems_are_told_at_once() -> None:
    document = {
        "rules": [{"name": "a", "use": "mini", "min_match": 7}, 5, {"name": "a", "weights": {"mini": 0}}, {"use": [1]}],
        "defaults": {"optimise": "cost", "fallbacks": ["nobody"]},
        "analyzer": 7,
    }
    places = [problem.partition(": ")[0] for problem in problems_of(document)]
    assert places == [
        *("rules[0].use", "rules[1]", "rules[3].use[0]", "rules[3].name", "defaults.optimise", "analyzer"),
        *("rules[0].min_match", "rules[2].weights.mini", "rules[2].name", "defaults.fallbacks[0]"),
    ]


def test_a_refusal_names_the_first_place_and_holds_all_that_fits() -> None:
    found = policies.check({"hints": {"h": [""] * 300}}, REGISTRY, ANALYZERS)[1]
    refusal = policies.refused(found)
    assert (refusal.code, refusal.param) == ("invalid_request", "hints.h[0]")
    assert refusal.message == "hints.h[0]: a name must not be empty (and 299 more problems)"
    assert (len(refusal.metadata["problems"]), refusal.metadata["count"]) == (200, 300)
    assert refusal.metadata["problems"][1] == {"path": "hints.h[1]", "message": "a name must not be empty"}


def test_few_of_many_unknown_names_are_looked_for_something_alike() -> None:
    told = problems_of(rule(use=[f"gpt-{number}" for number in range(10, 40)]))
    assert sum("did you mean" in one for one in told) == 10
    assert len(told) == 30


def test_what_a_long_name_is_like_is_not_looked_for_and_it_is_shown_cut() -> None:
    (told,) = problems_of(rule(use=["x" * 100]))
    assert "x" * 59 + "…" in told
    assert "did you mean" not in told


# -- what is doubtful --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (rule(use=["old", "mini"]), 'rules[0].use[0]: takes no requests: model "old" is retired'),
        (rule(weights={"old": 1}), 'rules[0].weights.old: takes no requests: model "old" is retired'),
        (
            {"defaults": {"fallbacks": ["legacy"]}},
            "defaults.fallbacks[0]: takes no requests: no model with it is enabled",
        ),
        (
            rule(when={"hints": ["code"]}),
            "rules[0].when.hints: never fits: there are no hints without an analyzer; set `analyzer`, to builtin say",
        ),
        (
            rule(when={"model": "gtp-4"}),
            'rules[0].when.model: never fits: no model\'s id is like "gtp-4", nor is auto; did you mean "gpt-4"?',
        ),
        (
            rule(when={"model": "gpt-*"}, use=["mini"]),
            "rules[0].use: says nothing to requests that name their model, and this rule is for no others; "
            "let `when.model` fit auto, or leave this out",
        ),
        (
            rule(when={"capabilities": ["reasonin"]}),
            'rules[0].when.capabilities: no model has a score for "reasonin"; did you mean "reasoning"?',
        ),
        (
            rule(require={"capabilities": {"poetry": 0.5}}),
            'rules[0].require.capabilities: no model has a score for "poetry"',
        ),
        (rule(require={"tags": ["bgi"]}), 'rules[0].require.tags[0]: no model has the tag "bgi"; did you mean "big"?'),
        ({"defaults": {"require": {"data": ["us"]}}}, 'defaults.require.data[0]: no provider promises "us"'),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_likely_not_meant_is_a_warning(document: dict[str, Any], told: str) -> None:
    assert warnings_of(document) == [told]


@pytest.mark.parametrize(
    "document",
    [
        {},
        rule(when={"model": "*"}, use=["mini"]),
        rule(when={"model": "auto"}, use=["fast"], require={"data": ["eu"], "tags": ["paid"], "avoid": ["legacy"]}),
        rule(when={"thread": "-", "model": "gpt-4"}, fallbacks=["mini"]),
        {**rule(when={"hints": ["code"]}), "analyzer": "builtin", "hints": {"code": ["reasoning"]}},
        rule(require={"capabilities": ["speed"], "max_cost_usd": "0"}, min_match=0),
    ],
    ids=str,
)
def test_what_is_meant_is_no_warning(document: dict[str, Any]) -> None:
    assert warnings_of(document) == []


def test_data_that_nobody_promises_may_be_kept_by_local_providers() -> None:
    policy, _ = policies.read({"defaults": {"require": {"data": ["us"]}}})
    assert policies.warnings(policy, a_registry(a_model())) == []


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ({}, {}, True),
        ({}, {"model": "a"}, True),
        ({"model": "*"}, {}, True),
        ({"model": "a*"}, {}, False),
        ({"model": "a*"}, {"model": "ab*c"}, True),
        ({"model": "a*c"}, {"model": "a*"}, False),
        ({"model": "a.c"}, {"model": "abc"}, False),
        ({"thread": "a"}, {"thread": "a"}, True),
        ({"key": "a"}, {"key": "*"}, False),
        ({"tags": ["a"]}, {"tags": ["b", "a"]}, True),
        ({"tags": ["a", "b"]}, {"tags": ["a"]}, False),
        ({"operation": "chat"}, {}, False),
        ({"stream": False}, {"stream": False}, True),
        ({"stream": True}, {"stream": False}, False),
        ({"min_input_tokens": 5}, {"min_input_tokens": 5}, True),
        ({"min_input_tokens": 5}, {"min_input_tokens": 4}, False),
        ({"min_input_tokens": 0}, {}, True),
        ({"max_input_tokens": 5}, {"max_input_tokens": 5}, True),
        ({"max_input_tokens": 5}, {"max_input_tokens": 6}, False),
        ({"max_input_tokens": 5}, {}, False),
    ],
    ids=str,
)
def test_one_condition_covers_another_where_all_that_fits_it_fits(
    wide: dict[str, Any], narrow: dict[str, Any], covered: bool
) -> None:
    assert covers(When(**wide), When(**narrow)) is covered
    document = {"rules": [{"name": "first", "when": wide}, {"name": "second", "when": narrow}]}
    told = [one for one in policies.warnings(policies.read(document)[0], REGISTRY) if "never applies" in one.message]
    assert [one.path for one in told] == (["rules[1]"] if covered else [])


def test_a_rule_behind_one_for_everything_is_told_with_what_is_in_its_way() -> None:
    (told,) = warnings_of({"rules": [{"name": "all"}, {"name": "some", "when": {"stream": True}}]})
    assert (
        told == 'rules[1]: never applies: rules[0], "all", takes every request that fits it; move it up, or remove it'
    )
