"""Which model serves a request: given the registry, breakers, rates and books, when it comes, then a decision."""

from typing import Any

import pytest
from given import NOON, a_model, a_moment, a_provider, a_rate, a_request, chat, embeddings
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.moment import Moment, with_attempt
from trunkline_actors.ranking import MAX_CANDIDATES, Ranked, rank
from trunkline_actors.requests import AUTO, Parsed
from trunkline_actors.routing import decide
from trunkline_events.failure import FailureClass
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model
from trunkline_events.thread import Books, OpenAttempt, RequestRefused, RouteDecided
from trunkline_projections.circuits import Circuit

EMPTY = Books()


def order(parsed: Parsed, moment: Moment, *tried: str) -> list[str]:
    ranked = rank(a_request(parsed, *tried), moment)
    assert isinstance(ranked, Ranked), ranked
    return [model.id for model in ranked.models]


def refused(parsed: Parsed, moment: Moment, *tried: str) -> Refused:
    found = rank(a_request(parsed, *tried), moment)
    assert isinstance(found, Refused)
    return found


def why_not(model: Model, parsed: Parsed, **moment: Any) -> str:
    reasons = refused(parsed, a_moment(model, **moment)).metadata["reasons"]
    assert list(reasons.values()) == [1]
    return str(next(iter(reasons)))


# -- the order


def test_a_model_that_is_named_serves_alone() -> None:
    assert order(chat("a"), a_moment(a_model("a"), a_model("b"))) == ["a"]


def test_fallbacks_follow_the_named_model_in_the_order_given() -> None:
    moment = a_moment(a_model("a"), a_model("b"), a_model("c"), rates={"b": a_rate(9, 9)})
    assert order(chat("a", route={"fallbacks": ["b", "gone", "c", "a"]}), moment) == ["a", "b", "c"]


def test_a_failed_first_choice_falls_through_to_the_second() -> None:
    moment = a_moment(a_model("a"), a_model("b"))
    assert order(chat("a", route={"fallbacks": ["b"]}), moment, "a") == ["b"]


def test_auto_takes_the_cheapest_first() -> None:
    rates = {"a": a_rate(5, 5), "b": a_rate(1, 1), "c": a_rate(3, 3)}
    assert order(chat(AUTO), a_moment(a_model("a"), a_model("b"), a_model("c"), rates=rates)) == ["b", "c", "a"]


def test_models_of_one_price_keep_the_order_they_were_registered_in() -> None:
    assert order(chat(AUTO), a_moment(a_model("b"), a_model("a"), a_model("c"))) == ["b", "a", "c"]


def test_preferred_models_come_first_and_fallbacks_last_whatever_they_cost() -> None:
    models = [a_model(name) for name in "abcde"]
    rates = {"a": a_rate(1, 1), "b": a_rate(2, 2), "c": a_rate(3, 3), "d": a_rate(0, 0), "e": a_rate(9, 9)}
    wishes = chat(AUTO, route={"prefer": ["e", "gone", "c"], "fallbacks": ["d"]})
    assert order(wishes, a_moment(*models, rates=rates)) == ["e", "c", "a", "b", "d"]


def test_what_was_considered_is_recorded_with_score_and_reason() -> None:
    moment = a_moment(a_model("a"), a_model("b", status="disabled"), a_model("c"))
    ranked = rank(a_request(chat(AUTO, route={"prefer": ["c"]})), moment)
    assert isinstance(ranked, Ranked)
    assert [(one.model, one.score is None, one.reason) for one in ranked.considered] == [
        ("c", False, "preferred"),
        ("a", False, "cheapest first"),
        ("b", True, "disabled"),
    ]


def test_only_so_many_candidates_are_recorded_and_the_rest_counted_by_reason() -> None:
    models = [a_model(f"m{n}") for n in range(20)] + [a_model(f"off{n}", status="disabled") for n in range(3)]
    ranked = rank(a_request(chat(AUTO)), a_moment(*models))
    assert isinstance(ranked, Ranked)
    assert len(ranked.models) == 20
    assert len(ranked.considered) == MAX_CANDIDATES
    assert ranked.left_out == {"cheapest first": 4, "disabled": 3}


# -- who is left out


@pytest.mark.parametrize(
    ("model", "parsed", "reason"),
    [
        (a_model(status="disabled"), chat(), "disabled"),
        (a_model(status="retired"), chat(AUTO), "retired"),
        (a_model(), chat(route={"avoid": ["m"]}), "to be avoided"),
        (a_model(), chat(tools=[{}]), "lacks tools"),
        (a_model(features=["tools"]), chat(tools=[{}], response_format={"type": "json_schema"}), "lacks json_schema"),
        (a_model(), embeddings(), "lacks embeddings"),
        (a_model(), chat(route={"capabilities": ["reasoning"]}), "lacks capability reasoning"),
        (
            a_model(capabilities={"reasoning": 0.0}),
            chat(route={"capabilities": ["reasoning"]}),
            "lacks capability reasoning",
        ),
    ],
)
def test_a_model_that_can_not_serve_is_left_out_with_the_reason(model: Model, parsed: Parsed, reason: str) -> None:
    assert why_not(model, parsed) == reason


def test_a_model_whose_provider_is_not_local_or_gone_or_broken_is_left_out() -> None:
    local = chat(route={"local_only": True})
    assert why_not(a_model(), local, providers=[a_provider(local=False)]) == "not local"
    assert why_not(a_model(), chat(), providers=[]) == "its provider is not registered"
    broken = Circuit(state="open", retry_at=NOON + 1)
    assert why_not(a_model(), chat(), circuits={"p": broken}) == "its circuit is open"
    probed = Circuit(state="half-open", probe_until=NOON + 1)
    assert why_not(a_model(), chat(), circuits={"p": probed}) == "its circuit is being probed"


@pytest.mark.parametrize(
    "circuit",
    [
        Circuit(state="open", retry_at=NOON),
        Circuit(state="open"),
        Circuit(state="half-open", probe_until=NOON),
        Circuit(failures=4),
    ],
)
def test_a_provider_whose_circuit_lets_a_probe_through_is_offered_one(circuit: Circuit) -> None:
    assert order(chat(), a_moment(a_model(), circuits={"p": circuit})) == ["m"]


def test_a_model_that_has_what_is_asked_for_serves() -> None:
    able = a_model(features=["tools", "vision"], capabilities={"reasoning": 0.1}, context_window=1000)
    asked = chat(tools=[{}], route={"capabilities": ["reasoning"], "local_only": True})
    assert order(asked, a_moment(able)) == ["m"]


# -- no candidate at all


@pytest.mark.parametrize("name", ["nope", "auto2"])
def test_a_model_that_nobody_registered_is_not_found(name: str) -> None:
    found = refused(chat(name), a_moment(a_model()))
    assert (found.code, found.param) == ("model_not_found", "model")


def test_an_empty_registry_has_no_route() -> None:
    found = refused(chat(AUTO), a_moment())
    assert (found.code, found.metadata) == ("no_route", {"reasons": {}, "tried": []})
    assert "none is registered" in found.message


def test_why_there_is_no_route_is_told_by_reason() -> None:
    moment = a_moment(a_model("a"), a_model("b", status="disabled"), a_model("c", status="disabled"))
    found = refused(chat(AUTO), moment, "a")
    assert found.metadata == {"reasons": {"disabled": 2, "failed already for this request": 1}, "tried": ["a"]}
    assert "disabled (2), failed already for this request (1)" in found.message


def test_a_request_that_is_too_long_for_every_model_is_told_so() -> None:
    long = chat(AUTO, messages=[{"role": "user", "content": "x" * 1000}])
    small = a_model("a", context_window=10), a_model("b", context_window=20)
    assert refused(long, a_moment(*small)).code == "context_length_exceeded"
    assert refused(long, a_moment(*small, a_model("c", status="disabled"))).code == "no_route"
    assert order(long, a_moment(*small, a_model("c", context_window=1000))) == ["c"]


# -- the decision


def decided(found: RouteDecided | RequestRefused | Refused) -> RouteDecided:
    assert isinstance(found, RouteDecided), found
    return found


def test_a_decision_reserves_the_worst_case_and_says_what_it_was_made_from() -> None:
    parsed = chat("m", max_tokens=10)
    found = decided(decide(EMPTY, a_request(parsed), a_moment(a_model(), rates={"m": a_rate(1, 2, version="v9")})))
    worst = parsed.asked.input_bound + 20
    assert (found.reserve_nanos, found.reserved_nanos, found.max_tokens) == (worst, worst, 10)
    assert found.open == {"r-1": OpenAttempt(request_id="r", reserve_nanos=worst)}
    assert (found.attempt_id, found.attempt, found.model, found.provider) == ("r-1", 1, "m", "p")
    assert (found.price_version, found.log_seq, found.now, found.draw) == ("v9", 7, NOON, 0.5)
    assert (found.asked, found.tried, found.deadline, found.reply) == (parsed.asked, [], NOON + 60, "_INBOX.caller")


def test_the_same_decision_is_made_again_from_the_same_facts() -> None:
    request, moment = a_request(chat(AUTO)), a_moment(a_model("a"), a_model("b"))
    assert decide(EMPTY, request, moment) == decide(EMPTY, request, moment)


def test_a_candidate_that_the_budget_can_not_pay_gives_way_to_one_it_can() -> None:
    moment = a_moment(a_model("dear"), a_model("cheap"), rates={"dear": a_rate(10**9, 1), "cheap": a_rate(1, 1)})
    wishes = chat("dear", route={"fallbacks": ["cheap"]})
    found = decided(decide(Books(limit_nanos=10**6), a_request(wishes), moment))
    assert found.model == "cheap"
    assert [one.model for one in found.candidates] == ["dear", "cheap"]


def test_a_request_that_no_candidate_can_serve_within_the_budget_is_refused_as_an_event() -> None:
    moment = a_moment(a_model("a"), a_model("b"), rates={"a": a_rate(20, 1), "b": a_rate(10, 1)})
    parsed = chat("a", route={"fallbacks": ["b"]})
    books = Books(limit_nanos=10, settled_nanos=4, reserved_nanos=5)
    found = decide(books, a_request(parsed), moment)
    assert isinstance(found, RequestRefused)
    assert (found.code, found.budget) == ("budget_exceeded", "thread")
    assert found.needed_nanos == parsed.asked.input_bound * 20 + 1, "what the first choice would take"
    assert (found.settled_nanos, found.reserved_nanos, found.limit_nanos, found.open) == (4, 5, 10, {})
    assert found.asked == parsed.asked


def test_a_refusal_in_a_new_period_carries_the_books_of_that_period() -> None:
    books = Books(limit_nanos=1, settled_nanos=1, window="day", period="2026-11-20")
    found = decide(books, a_request(chat()), a_moment(a_model(), rates={"m": a_rate(1, 1)}))
    assert isinstance(found, RequestRefused)
    assert (found.period, found.settled_nanos) == ("2026-11-21", 0)


def test_a_refusal_for_another_reason_than_the_thread_s_money_is_no_event() -> None:
    moment = a_moment(a_model(), rates={"m": a_rate(1, 1)})
    for parsed, code in ((chat("nope"), "model_not_found"), (chat(route={"max_cost_usd": "0"}), "no_route")):
        found = decide(EMPTY, a_request(parsed), moment)
        assert isinstance(found, Refused)
        assert found.code == code


def test_clamping_is_on_where_the_caller_set_no_bound_and_off_where_it_did() -> None:
    moment = a_moment(a_model(), rates={"m": a_rate(0, 1)})
    books = Books(limit_nanos=100)
    assert decided(decide(books, a_request(chat()), moment)).max_tokens == 100
    assert isinstance(decide(books, a_request(chat(max_tokens=101)), moment), RequestRefused)
    clamped = chat(max_tokens=101, route={"clamp": True})
    assert decided(decide(books, a_request(clamped), moment)).max_tokens == 100
    unclamped = chat(route={"clamp": False})
    assert isinstance(decide(books, a_request(unclamped), moment), RequestRefused)


def test_the_next_attempt_is_the_same_request_one_model_on() -> None:
    request = a_request(chat())
    after = with_attempt(request, "r-2", "m", FailureClass.TIMEOUT)
    assert (after.attempt_id, after.attempt, after.tried, after.failures) == ("r-2", 2, ("m",), ("timeout",))
    assert (after.request_id, after.deadline, after.parsed) == (request.request_id, request.deadline, request.parsed)


NAMES = st.lists(st.sampled_from("abcdz"), max_size=3, unique=True)


@given(st.sampled_from(["auto", "a"]), NAMES, NAMES, NAMES, st.lists(st.sampled_from("abcd"), max_size=4))
def test_whatever_is_wished_only_models_that_fit_are_ranked_and_every_one_is_accounted_for(
    model: str, prefer: list[str], fallbacks: list[str], avoid: list[str], tried: list[str]
) -> None:
    route = {"prefer": prefer, "fallbacks": fallbacks, "avoid": avoid}
    moment = a_moment(*(a_model(name) for name in "abc"), a_model("d", status="disabled"))
    ranked = rank(a_request(chat(model, route=route), *tried), moment)
    if isinstance(ranked, Refused):
        assert ranked.code == "no_route"
        return
    names = [one.id for one in ranked.models]
    assert not set(names) & {*avoid, *tried, "d", "z"}
    assert [one.model for one in ranked.considered if one.score is not None] == names
    assert {one.model for one in ranked.considered if one.score is None} <= {*avoid, *tried, "d"}
