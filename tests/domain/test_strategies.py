"""How models that can all serve a request are put in order."""

from collections import Counter
from typing import Any

import pytest
from given import a_model
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.plan import Stage
from trunkline_actors.strategies import BLIND, EXPLORE, PRIOR_MS, Conditions, Order, order
from trunkline_events.measured import Measured

M = 1_000_000
ABC = [a_model(name) for name in "abc"]
FREE = [(0, 0)] * 3


def conditions(**more: Any) -> Conditions:
    fields: dict[str, Any] = {
        "tokens_in": 100,
        "tokens_out": 10,
        "qualities": {},
        "measured": {},
        "busy": {},
        "draw": 0.5,
        "turn": 0,
        "percentile": 50,
        "blind": None,
    }
    return Conditions(**{**fields, **more})


def ordered(strategy: Any, prices: list[tuple[int, int]] = FREE, **more: Any) -> Order:
    return order(ABC, prices, Stage(None, "why", strategy), conditions(**more))


def names(found: Order) -> str:
    return "".join(ABC[place].id for place in found.places)


def test_without_a_strategy_the_order_is_as_it_was() -> None:
    assert names(ordered(None)) == "abc"


def test_cost_counts_what_the_request_needs_in_and_out() -> None:
    prices = [(1 * M, 100 * M), (5 * M, 5 * M), (2 * M, 2 * M)]
    found = ordered("cost", prices)
    assert names(found) == "cba"
    assert found.scores == [1_100.0, 550.0, 220.0]
    assert names(ordered("cost", prices, tokens_out=0)) == "acb"


def test_latency_is_that_of_answers_and_failures_make_it_longer() -> None:
    measured = {
        "a": Measured(calls=9, p50_ms=300, p95_ms=400),
        "b": Measured(calls=9, p50_ms=100, p95_ms=5_000),
        "c": Measured(calls=9, p50_ms=200, p95_ms=300, success=0.5),
    }
    assert names(ordered("latency", measured=measured)) == "bac"
    assert names(ordered("latency", measured=measured, percentile=95)) == "acb"


def test_an_unmeasured_model_is_taken_for_middling_and_is_tried_first_now_and_then() -> None:
    measured = {"a": Measured(calls=9, p50_ms=PRIOR_MS + 1), "b": Measured(calls=9, p50_ms=PRIOR_MS - 1)}
    assert names(ordered("latency", measured=measured)) == "bca"
    assert names(ordered("latency", measured=measured, draw=EXPLORE / 2)) == "cba"
    failing = {**measured, "c": Measured(calls=9, success=0.0)}
    assert names(ordered("latency", measured=failing, draw=EXPLORE / 2)) == "bac", "that is measured: it fails"


def test_quality_goes_by_the_match_and_among_equals_by_cost() -> None:
    qualities = {"a": 0.5, "b": 0.9, "c": 0.9}
    assert names(ordered("quality", [(1, 1), (9 * M, 9 * M), (1 * M, 1 * M)], qualities=qualities)) == "cba"


def test_balance_pays_double_for_a_quarter_of_quality() -> None:
    measured = {name: Measured(calls=9, p50_ms=100) for name in "abc"}
    qualities = {"a": 0.5, "b": 0.76, "c": 0.74}
    prices = [(1 * M, 0), (2 * M, 0), (2 * M, 0)]
    assert names(ordered("balanced", prices, measured=measured, qualities=qualities)) == "bac"


@pytest.mark.parametrize("turn", range(7))
def test_round_robin_gives_each_its_turn(turn: int) -> None:
    assert names(ordered("round_robin", turn=turn))[0] == "abc"[turn % 3]


def test_the_least_busy_comes_first_by_whoever_knows_more_and_equals_take_turns() -> None:
    measured = {"a": Measured(in_flight=2), "b": Measured(in_flight=5)}
    assert names(ordered("least_busy", measured=measured)) == "cab"
    assert names(ordered("least_busy", measured=measured, busy={"c": 3})) == "acb"
    equal = {name: Measured(in_flight=1) for name in "abc"}
    assert [names(ordered("least_busy", measured=equal, turn=turn))[0] for turn in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("strategy", ["latency", "balanced", "least_busy"])
def test_without_any_statistics_models_take_turns_and_that_is_told(strategy: str) -> None:
    qualities = dict.fromkeys("abc", 0.5)
    found = ordered(strategy, turn=1, qualities=qualities)
    assert (names(found), found.why, found.blind) == ("bca", BLIND, True)
    seeing = ordered(strategy, turn=1, qualities=qualities, blind=False)
    assert (seeing.why, seeing.blind) == ("why", False), "somebody else knows that there were some"
    assert ordered(strategy, measured={"a": Measured(calls=1)}, qualities=qualities, blind=True).why == BLIND


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_a_draw_takes_each_model_once_and_the_rest_by_weight(weights: list[float], draw: float) -> None:
    models = [a_model(f"m{number}") for number in range(len(weights))]
    stage = Stage(
        None, "split", weights=tuple((model.id, weight) for model, weight in zip(models, weights, strict=True))
    )
    found = order(models, [(0, 0)] * len(models), stage, conditions(draw=draw))
    assert sorted(found.places) == list(range(len(models)))
    rest = [weights[place] for place in found.places[1:]]
    assert rest == sorted(rest, reverse=True)
    assert [found.scores[place] for place in found.places] == list(map(float, range(len(models))))


def test_a_split_gives_each_model_its_share_of_the_draws() -> None:
    stage = Stage(None, "split", weights=(("a", 6.0), ("b", 3.0), ("c", 1.0)))
    drawn = Counter(names(order(ABC, FREE, stage, conditions(draw=number / 1_000)))[0] for number in range(1_000))
    assert drawn == {"a": 600, "b": 300, "c": 100}


@given(
    st.sampled_from(["cost", "latency", "quality", "balanced", "round_robin", "least_busy"]),
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=3, max_size=3),
    st.dictionaries(
        st.sampled_from("abc"),
        st.builds(
            Measured,
            calls=st.integers(0, 9),
            success=st.floats(0, 1),
            p50_ms=st.none() | st.floats(0, 10**6),
            in_flight=st.integers(0, 99),
        ),
    ),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 10**9),
)
def test_scores_are_never_negative_and_the_order_goes_by_them(
    strategy: str, prices: list[tuple[int, int]], measured: dict[str, Measured], draw: float, turn: int
) -> None:
    qualities = {"a": 0.0, "b": 0.5, "c": 1.0}
    found = ordered(strategy, prices, measured=measured, draw=draw, turn=turn, qualities=qualities)
    in_order = [found.scores[place] for place in found.places]
    assert in_order == sorted(in_order)
    assert in_order[0] >= 0
