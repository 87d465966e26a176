"""What a request is to be served by: an operator's word, its own, the policy's, its thread's, `auto`, in that order."""

from typing import Any

import pytest
from given import NOON, a_model, a_moment, chat, embeddings
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors import plan
from trunkline_actors.plan import Given, Plan, Stage, applies, fits, preferences_of, resolved
from trunkline_actors.requests import AUTO, NO_WISHES, Parsed
from trunkline_events.policy import Defaults, Policy, Require, Rule, When
from trunkline_projections.policies import Override, Routing

MODELS = [a_model(name, tags=["small"] if name in "bc" else []) for name in "abcdef"]


def given_for(parsed: Parsed, **more: Any) -> Given:
    fields: dict[str, Any] = {
        "thread": "t1",
        "key": "k",
        "default_model": None,
        "preferences": {},
        "forced": None,
        "now": NOON,
    }
    return Given(parsed=parsed, **{**fields, **more})


def make(parsed: Parsed, policy: Policy | None = None, override: Override | None = None, **more: Any) -> Plan:
    routing = Routing(version=1, policy=policy or Policy(), override=override)
    return plan.make(given_for(parsed, **more), structs.replace(a_moment(*MODELS).gateway, routing=routing))


def stages(made: Plan) -> list[tuple[tuple[str, ...] | None, str]]:
    return [(stage.names, stage.why) for stage in made.stages]


EVERYTHING = Policy(
    rules=[Rule(name="r", use=["small"], optimize="latency", fallbacks=["f"])], defaults=Defaults(fallbacks=["e"])
)
PREFERS = {"prefer": ["d"], "optimize": "quality", "fallbacks": ["d"]}


def test_what_an_operator_forces_serves_alone() -> None:
    forced = [((("e",)), "forced by an operator")]
    assert stages(make(chat("a", route={"fallbacks": ["b"]}), EVERYTHING, Override(model="e"))) == forced
    assert stages(make(chat(AUTO), EVERYTHING, Override(model="f", until=NOON + 1), forced="e")) == forced
    assert make(chat(AUTO), EVERYTHING, Override(model="e")).override == "e"


def test_an_override_that_is_over_is_none() -> None:
    made = make(chat("a"), override=Override(model="e", until=NOON))
    assert (stages(made), made.override) == ([(("a",), "asked for")], None)


def test_a_model_that_is_named_comes_before_what_the_policy_and_the_thread_say() -> None:
    made = make(chat("a"), EVERYTHING, default_model="d", preferences=PREFERS)
    assert stages(made) == [(("a",), "asked for"), (("f",), "fallback")]


def test_the_rule_that_fits_comes_before_the_thread_and_the_request_before_the_rule() -> None:
    made = make(chat(AUTO, route={"prefer": ["e"], "fallbacks": ["a"]}), EVERYTHING, preferences=PREFERS)
    assert stages(made) == [(("e",), "preferred"), (("b", "c"), "fastest first"), (("a",), "fallback")]
    assert made.stages[1].optimize == "latency"
    mine = make(chat(AUTO, route={"optimize": "cost"}), EVERYTHING)
    assert mine.stages[0] == Stage(("b", "c"), "cheapest first", "cost")


def test_without_a_rule_the_thread_says_what_is_preferred() -> None:
    made = make(chat(AUTO), default_model="b", preferences=PREFERS)
    assert stages(made) == [
        (("b",), "the thread's model"),
        (("d",), "preferred by the thread"),
        (None, "best match first"),
        (("d",), "fallback"),
    ]


def test_without_anything_the_cheapest_comes_first_and_defaults_say_otherwise() -> None:
    assert stages(make(chat(AUTO))) == [(None, "cheapest first")]
    policy = Policy(defaults=Defaults(optimize="balanced", fallbacks=["e"], percentile=95))
    made = make(chat(AUTO), policy)
    assert stages(made) == [(None, "best balance first"), (("e",), "fallback")]
    assert made.percentile == 95


def test_models_a_rule_names_come_in_its_order_where_it_has_no_strategy() -> None:
    made = make(chat(AUTO), Policy(rules=[Rule(name="r", use=["d", "small", "a", "nobody"])]))
    assert made.stages == (Stage(("d", "b", "c", "a"), "as the policy has it"),)


def test_a_split_is_by_weight_unless_the_request_has_a_strategy() -> None:
    policy = Policy(rules=[Rule(name="r", weights={"a": 9, "b": 1})])
    (stage,) = make(chat(AUTO), policy).stages
    assert (stage.names, stage.weights, stage.optimize) == (("a", "b"), (("a", 9.0), ("b", 1.0)), None)
    (stage,) = make(chat(AUTO, route={"optimize": "cost"}), policy).stages
    assert (stage.names, stage.weights, stage.optimize) == (("a", "b"), (), "cost")


def test_conditions_of_all_add_up_also_for_a_model_that_is_named() -> None:
    policy = Policy(
        rules=[
            Rule(
                name="r",
                require=Require(avoid=["a", "small"], data=["eu"], capabilities={"reasoning": 0.5}, max_cost_usd="2"),
                min_match=0.4,
            )
        ],
        defaults=Defaults(require=Require(local_only=True, tags=["t1"], max_cost_usd="1"), min_match=0.9),
    )
    wishes = {"avoid": ["y"], "tags": ["t2"], "capabilities": ["reasoning", "speed"], "min_match": 0.6}
    made = make(chat("a", route=wishes), policy, preferences={"avoid": ["z"], "max_cost_usd": "3", "data": ["zdr"]})
    needs = made.needs
    assert needs.avoid == ("y", "z", "a", "b", "c")
    assert needs.tags == ("t2", "t1")
    assert needs.data == ("zdr", "eu")
    assert needs.capabilities == (("reasoning", 0.5), ("speed", 0.0))
    assert (needs.local_only, needs.min_match, made.max_cost_nanos) == (True, 0.6, 10**9)


def test_fallbacks_of_a_policy_may_be_named_by_tag() -> None:
    policy = Policy(rules=[Rule(name="r", fallbacks=["f", "small"])], defaults=Defaults(fallbacks=["small"]))
    assert make(chat("a"), policy).fallbacks == ("f", "b", "c")
    assert make(chat("a"), Policy(defaults=policy.defaults)).fallbacks == ("b", "c")


def test_what_a_thread_wants_counts_where_the_request_wants_nothing() -> None:
    prefers = {"capabilities": ["speed"], "clamp": False, "min_match": 0.3}
    assert make(chat(AUTO), preferences=prefers).needs.min_match == 0.3
    assert make(chat(AUTO), preferences=prefers).needs.wanted == ("speed",)
    made = make(chat(AUTO, route={"capabilities": ["reasoning"], "clamp": True}), preferences=prefers)
    assert (made.needs.wanted, made.clamp) == (("reasoning",), True)
    assert make(chat(AUTO), preferences=prefers).clamp is False


def test_a_hint_asks_for_capabilities_only_where_the_choice_is_ours() -> None:
    policy = Policy(hints={"odd": ["own"]})
    hinted = structs.replace(chat(AUTO), asked=structs.replace(chat(AUTO).asked, hints=["odd"]))
    assert make(hinted, policy).guessed == ("own",)
    named = structs.replace(hinted, asked=structs.replace(hinted.asked, model="a"))
    assert make(named, policy).guessed == ()


@pytest.mark.parametrize(
    ("when", "fitting"),
    [
        ({}, True),
        ({"operation": "chat"}, True),
        ({"operation": "embeddings"}, False),
        ({"stream": True}, False),
        ({"stream": False}, True),
        ({"model": "auto"}, True),
        ({"model": "a*"}, True),
        ({"model": "A*"}, False),
        ({"thread": "t*"}, True),
        ({"thread": "u*"}, False),
        ({"key": "k"}, True),
        ({"key": ""}, False),
        ({"min_input_tokens": 1}, True),
        ({"min_input_tokens": 10_000}, False),
        ({"max_input_tokens": 10_000}, True),
        ({"max_input_tokens": 1}, False),
        ({"capabilities": ["reasoning"]}, True),
        ({"capabilities": ["reasoning", "speed"]}, False),
        ({"features": ["tools"]}, True),
        ({"features": ["vision"]}, False),
        ({"tags": ["prod"]}, True),
        ({"tags": ["dev"]}, False),
        ({"hints": ["code"]}, True),
        ({"hints": ["math"]}, False),
        ({"model": "auto", "tags": ["dev"]}, False),
    ],
)
def test_a_rule_is_for_the_requests_that_fit_all_it_names(when: dict[str, Any], fitting: bool) -> None:
    parsed = chat(AUTO, tools=[{}], route={"capabilities": {"reasoning": 0.2}, "tags": ["prod"]})
    parsed = structs.replace(parsed, asked=structs.replace(parsed.asked, hints=["code"]))
    assert applies(When(**when), given_for(parsed)) is fitting


def test_embeddings_are_routed_by_rules_too() -> None:
    policy = Policy(rules=[Rule(name="e", when=When(operation="embeddings"), use=["b"])])
    assert make(embeddings(AUTO), policy).rule == "e"
    assert make(chat(AUTO), policy).rule is None


def test_the_first_rule_that_fits_counts() -> None:
    rules = [Rule(name="no", when=When(model="x")), Rule(name="yes"), Rule(name="late")]
    assert make(chat("a"), Policy(rules=rules)).rule == "yes"


@given(st.text(), st.text(), st.text())
def test_a_star_stands_for_any_text_and_everything_else_for_itself(before: str, middle: str, after: str) -> None:
    plain = (before + after).replace("*", "")
    assert fits(plain, plain)
    assert fits(f"{before}*{after}", before.replace("*", "") + middle + after.replace("*", ""))
    assert not fits("a.c", "abc")
    assert not fits("a*c", "abcd")


def test_no_pattern_takes_longer_than_it_and_the_text_are_long() -> None:
    """A pattern that tries every split of the text would not come back from this."""
    assert not fits("*-" * 40 + "x", "-" * 128)
    assert fits("*-" * 40 + "*x", "-" * 128 + "x")


@pytest.mark.parametrize(
    ("pattern", "text", "so"),
    [("ab*ba", "aba", False), ("ab*ba", "abba", True), ("*", "", True), ("**", "x", True), ("a*a*a", "aa", False)],
)
def test_pieces_of_a_pattern_do_not_overlap(pattern: str, text: str, so: bool) -> None:
    assert fits(pattern, text) is so


def test_a_tag_stands_for_all_that_carry_it_and_an_id_comes_before_a_tag() -> None:
    registry = a_moment(*MODELS, a_model("small")).gateway.registry
    assert resolved(["c", "small", "c"], registry) == ["c", "small"]
    assert resolved(["small"], a_moment(*MODELS).gateway.registry) == ["b", "c"]


def test_preferences_of_an_older_shape_are_none() -> None:
    assert preferences_of({"prefer": "not a list"}) is NO_WISHES
    assert preferences_of({}) is NO_WISHES
