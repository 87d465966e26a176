"""Who may serve a request after what failed before, in which version, and what is recorded of all the others."""

from collections import Counter
from typing import Any

import pytest
from given import NOON, a_model, a_moment, a_provider, a_rate, a_request, chat
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors import ranking
from trunkline_actors.moment import Moment, Request, served, with_attempt
from trunkline_actors.plan import Needs
from trunkline_actors.ranking import Ranked, rank
from trunkline_actors.requests import AUTO
from trunkline_actors.routing import decide
from trunkline_actors.shortlist import FEW, Shortlists, World, shortlist
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.policy import Configuration, Defaults, Policy, Rule
from trunkline_events.refusal import Refused
from trunkline_events.registry import Canary
from trunkline_events.thread import Books, RouteDecided
from trunkline_projections.circuits import Circuit
from trunkline_projections.policies import Override, Routing

FALLBACKS = {"fallbacks": ["b", "c", "d"]}


def after(failure: FailureClass, *, model: str = "a", rested: int = 0, version: str = "1") -> Request:
    request = with_attempt(a_request(chat(model, route=FALLBACKS)), "r-2", model, failure, version)
    return structs.replace(request, rested=rested)


def order(request: Request, moment: Moment) -> list[str]:
    ranked = rank(request, moment)
    return [] if isinstance(ranked, Refused) else [model.id for model in ranked.models]


def reasons(request: Request, moment: Moment) -> dict[str, str]:
    ranked = rank(request, moment)
    assert isinstance(ranked, Ranked), ranked
    return {one.model: one.reason for one in ranked.considered}


# -- after a failure


def test_a_longer_request_goes_to_a_longer_context_window() -> None:
    models = [a_model(name, context_window=window) for name, window in zip("abcd", (8, 4, 16, None), strict=True)]
    request, moment = after(FailureClass.CONTEXT_LENGTH), a_moment(*models)
    assert order(request, moment) == ["c", "d"]
    assert reasons(request, moment)["b"] == ranking.NO_LONGER
    unknown = a_moment(a_model("a"), a_model("b", context_window=4))
    assert order(request, unknown) == ["b"], "nobody knows that it is no longer"


def test_a_request_too_long_for_all_of_them_is_told_so() -> None:
    found = rank(after(FailureClass.CONTEXT_LENGTH), a_moment(a_model("a", context_window=8)))
    assert isinstance(found, Refused)
    assert found.code == "no_route", "that one failed, and there was no other"
    longer = rank(
        after(FailureClass.CONTEXT_LENGTH), a_moment(a_model("a", context_window=8), a_model("b", context_window=8))
    )
    assert isinstance(longer, Refused)
    assert longer.metadata["reasons"] == {ranking.FAILED: 1, ranking.NO_LONGER: 1}


@pytest.mark.parametrize("failure", [FailureClass.AUTH, FailureClass.CONTENT_FILTER])
def test_a_key_that_was_refused_or_a_filter_holds_for_the_whole_provider(failure: FailureClass) -> None:
    moment = a_moment(a_model("a"), a_model("b"), a_model("c", provider="q"))
    assert order(after(failure), moment) == ["c"]


def test_any_other_failure_holds_for_its_model_until_it_has_rested() -> None:
    moment = a_moment(a_model("a"), a_model("b"))
    assert order(after(FailureClass.OVERLOADED), moment) == ["b"]
    assert order(after(FailureClass.OVERLOADED, rested=1), moment) == ["a", "b"]


def test_failures_of_a_request_that_an_older_version_parked_count_as_failures() -> None:
    request = structs.replace(a_request(chat("a", route=FALLBACKS)), tried=("a",))
    assert order(request, a_moment(a_model("a"), a_model("b"))) == ["b"]


# -- canaries


def a_canary(**more: Any) -> Canary:
    return Canary(**{"version": "2", "provider": "p", "upstream": "new", "weight": 0.25, **more})


def test_a_canary_serves_its_share_of_the_requests() -> None:
    moment = a_moment(a_model("a", canary=a_canary()))
    model, request = moment.gateway.registry.models["a"], a_request(chat("a"))
    drawn = Counter(
        served(model, request, structs.replace(moment, draw=number / 10_000), Needs()).version
        for number in range(10_000)
    )
    assert abs(drawn["2"] - 2_500) < 100


def test_what_a_canary_serves_is_decided_and_priced_as_its_version() -> None:
    moment = a_moment(
        a_model("a", canary=a_canary(provider="q", weight=0.999)),
        a_model("b", provider="q"),
        rates={"a": a_rate(1, 1), "a@2": a_rate(5, 5, version="new")},
    )
    decision = decide(Books(), a_request(chat("a", max_tokens=10)), structs.replace(moment, draw=0.1))
    assert isinstance(decision, RouteDecided)
    assert (decision.model, decision.version, decision.provider) == ("a", "2", "q")
    assert decision.price_version == "new"


@pytest.mark.parametrize("why", ["failed", "gone", "open"])
def test_a_canary_that_failed_or_cannot_be_called_leaves_the_request_to_the_model_itself(why: str) -> None:
    canary = a_canary(provider="gone" if why == "gone" else "q", weight=0.999)
    circuits = {"q": Circuit(state="open", retry_at=NOON + 9)} if why == "open" else None
    moment = a_moment(a_model("a", canary=canary), a_model("z", provider="q"), circuits=circuits)
    request = after(FailureClass.TIMEOUT, version="2") if why == "failed" else a_request(chat("a"))
    moment = structs.replace(moment, draw=0.1)
    assert order(request, moment) == ["a"]
    assert served(moment.gateway.registry.models["a"], request, moment, Needs()).version == "1"


# -- guesses, overrides, policies


def with_policy(moment: Moment, policy: Policy, override: Override | None = None) -> Moment:
    routing = Routing(version=4, policy=policy, override=override)
    return structs.replace(moment, gateway=structs.replace(moment.gateway, routing=routing))


def test_a_guess_narrows_the_choice_and_never_leaves_a_request_without_a_model() -> None:
    policy = Policy(hints={"odd": ["own"]})
    parsed = chat(AUTO)
    parsed = structs.replace(parsed, asked=structs.replace(parsed.asked, hints=["odd"]))
    able = with_policy(a_moment(a_model("a"), a_model("b", capabilities={"own": 0.5})), policy)
    assert order(a_request(parsed), able) == ["b"]
    assert order(a_request(parsed), with_policy(a_moment(a_model("a")), policy)) == ["a"]


def test_a_forced_model_that_cannot_serve_is_said_to_be_forced() -> None:
    moment = with_policy(a_moment(a_model("a")), Policy(), Override(model="gone"))
    found = rank(a_request(chat("a")), moment)
    assert isinstance(found, Refused)
    assert "an operator sends everything to 'gone'" in found.message
    assert "not registered" in found.message


def test_a_bar_leaves_out_what_matches_too_little() -> None:
    able = [a_model("weak", capabilities={"reasoning": 0.4}), a_model("able", capabilities={"reasoning": 0.9})]
    rates = {"weak": a_rate(1, 1), "able": a_rate(9, 9)}
    request = a_request(chat(AUTO, route={"capabilities": ["reasoning"], "min_match": 0.5, "optimize": "cost"}))
    assert order(request, a_moment(*able, rates=rates)) == ["able"]
    assert reasons(request, a_moment(*able, rates=rates))["weak"] == "matches too little"


def test_data_that_must_stay_goes_to_who_promises_it_or_is_local() -> None:
    providers = [
        a_provider("near"),
        a_provider("eu", local=False, data=["eu"]),
        a_provider("far", local=False),
    ]
    moment = a_moment(*(a_model(name, provider=name) for name in ("near", "eu", "far")), providers=providers)
    request = a_request(chat(AUTO, route={"data": ["eu"]}))
    assert order(request, moment) == ["near", "eu"]
    assert reasons(request, moment)["far"] == "its provider does not promise eu"
    assert reasons(a_request(chat(AUTO, route={"data": ["zdr"]})), moment)["eu"] == "its provider does not promise zdr"


def test_what_was_decided_from_is_in_the_decision() -> None:
    moment = with_policy(
        a_moment(
            a_model("a"), a_model("b"), rates={"a": a_rate(1, 1, version="list"), "b": a_rate(2, 2, version="model@7")}
        ),
        Policy(rules=[Rule(name="r", optimize="latency")]),
    )
    moment = structs.replace(moment, measured={"b": Measured(calls=9, p50_ms=5)}, busy={"a": 3}, turns={"r": 11})
    request = structs.replace(
        after(FailureClass.TIMEOUT, model="gone"),
        parsed=chat(AUTO),
        configuration=Configuration(sequence=3, model=None, preferences={"avoid": ["x"]}),
    )
    decision = decide(Books(config_seq=3), request, moment)
    assert isinstance(decision, RouteDecided)
    assert (decision.policy_version, decision.rule, decision.model) == (4, "r", "b")
    assert decision.stats == {"b": Measured(calls=9, p50_ms=5)}
    assert decision.preferences == {"avoid": ["x"]}
    basis = decision.basis
    assert (basis.failures, basis.versions, basis.turn, basis.config_seq) == (["timeout"], ["1"], None, 3)
    assert (basis.busy, basis.rates) == ({"a": 3}, {"a": a_rate(1, 1, version="list")}), "the other is in the log"


def test_turns_are_counted_for_each_rule_alone_and_only_where_they_are_taken() -> None:
    policy = Policy(rules=[Rule(name="r", optimize="round_robin")])
    moment = structs.replace(with_policy(a_moment(a_model("a"), a_model("b")), policy), turns={"r": 3, "": 8})
    decision = decide(Books(), a_request(chat(AUTO)), moment)
    assert isinstance(decision, RouteDecided)
    assert (decision.model, decision.basis.turn) == ("b", 3)
    named = decide(Books(), a_request(chat("a")), moment)
    assert isinstance(named, RouteDecided)
    assert named.basis.turn is None


def test_other_providers_come_first_once_one_of_them_failed_a_request() -> None:
    models = [a_model("a"), a_model("b"), a_model("c", provider="q")]
    rates = {"a": a_rate(1, 1), "b": a_rate(2, 2), "c": a_rate(9, 9)}
    request = with_attempt(a_request(chat(AUTO)), "r-2", "a", FailureClass.CONNECTION, "1")
    assert order(request, a_moment(*models, rates=rates)) == ["c", "b"]
    named = with_attempt(a_request(chat("a", route={"fallbacks": ["b", "c"]})), "r-2", "a", FailureClass.CONNECTION)
    assert order(named, a_moment(*models, rates=rates)) == ["b", "c"], "an order that somebody gave is kept"


@pytest.mark.parametrize("failure", [FailureClass.AUTH, FailureClass.CONTENT_FILTER])
def test_a_refusal_of_a_canary_holds_for_its_provider_and_for_canaries_there(failure: FailureClass) -> None:
    moment = a_moment(
        a_model("a", canary=a_canary(provider="p", weight=0.999)),
        a_model("b", provider="q", canary=a_canary(provider="p", weight=0.999)),
        a_model("c"),
    )
    request, moment = after(failure, version="2"), structs.replace(moment, draw=0.1)
    assert order(request, moment) == ["b"]
    assert served(moment.gateway.registry.models["b"], request, moment, Needs()).provider == "q"


def test_a_speed_that_was_only_guessed_at_is_recorded_where_it_was_decided_by() -> None:
    policy = Policy(hints={"odd": ["speed"]}, defaults=Defaults(min_match=0.5))
    moment = with_policy(a_moment(a_model("a", capabilities={"speed": 0.9}), a_model("b")), policy)
    measured = {"a": Measured(calls=9, tokens_per_s=10), "b": Measured(calls=9, tokens_per_s=500)}
    parsed = chat(AUTO)
    parsed = structs.replace(parsed, asked=structs.replace(parsed.asked, hints=["odd"]))
    decision = decide(Books(), a_request(parsed), structs.replace(moment, measured=measured))
    assert isinstance(decision, RouteDecided)
    assert (decision.model, decision.stats) == ("b", measured)


def test_a_bar_of_the_policy_holds_for_the_plainest_request() -> None:
    policy = Policy(hints={"odd": ["reasoning"]}, defaults=Defaults(min_match=0.9))
    models = [a_model("weak", capabilities={"reasoning": 0.1}), a_model("strong", capabilities={"reasoning": 0.95})]
    parsed = chat(AUTO)
    parsed = structs.replace(parsed, asked=structs.replace(parsed.asked, hints=["odd"]))
    rates = {"weak": a_rate(1, 1), "strong": a_rate(9, 9)}
    assert order(a_request(parsed), with_policy(a_moment(*models, rates=rates), policy)) == ["strong"]


def test_a_model_that_two_stages_name_is_counted_once() -> None:
    models = [a_model(f"m{number}", status="disabled" if number < 3 else "enabled") for number in range(26)]
    ranked = rank(a_request(chat(AUTO, route={"prefer": ["m0", "m9"]})), a_moment(*models))
    assert isinstance(ranked, Ranked)
    assert len(ranked.considered) + sum(ranked.left_out.values()) == 26
    refused = rank(a_request(chat(AUTO, route={"prefer": ["m0"]})), a_moment(*models[:2]))
    assert isinstance(refused, Refused)
    assert refused.metadata["reasons"] == {"disabled": 2}


def test_a_thread_that_was_configured_meanwhile_is_read_again() -> None:
    found = decide(Books(config_seq=9), a_request(chat("a")), a_moment(a_model("a")))
    assert getattr(found, "sequence", None) == 9


# -- what is remembered

FEATURES = [[], ["tools"], ["tools", "vision"]]
NEEDS = st.builds(
    Needs,
    st.sampled_from([(), ("tools",)]),
    st.sampled_from([(), (("reasoning", 0.3),), (("speed", 0.4),)]),
    st.sampled_from([(), ("reasoning",)]),
    st.sampled_from([(), ("fast",)]),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(NEEDS, st.integers(0, 2), st.integers(0, 1)), max_size=30))
def test_a_remembered_shortlist_is_what_a_fresh_one_would_be(asked: list[tuple[Needs, int, int]]) -> None:
    worlds = []
    for number in range(3):
        models = [
            a_model(
                f"m{place}", features=["tools"] if (place + number) % 3 else [], capabilities={"reasoning": place / 20}
            )
            for place in range(FEW + 4)
        ]
        moment = a_moment(*models)
        for speed in (5.0, 500.0):
            measured = {model.id: Measured(calls=9, tokens_per_s=speed) for model in models}
            worlds.append(World(moment.gateway.registry, moment.rates, measured))
    kept = Shortlists()
    names = tuple(f"m{place}" for place in range(FEW + 2))
    for needs, number, speed in asked:
        world = worlds[2 * number + speed]
        for chosen in (None, names):
            made, fresh = kept.of(chosen, needs, world, 16), shortlist(chosen, needs, world, 16)
            assert (made.fits, made.rejected, made.reasons) == (fresh.fits, fresh.rejected, fresh.reasons)
            assert made.qualities(world.measured) == fresh.qualities(world.measured)
