"""What models are good at, by what they declare and what was measured, and how well that fits what is wanted."""

import pytest
from given import a_model
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.capabilities import HALF_SPEED, MEASURED_CALLS, lacks, match, quality, score, wanted_of
from trunkline_events.measured import Measured

SCORES = st.dictionaries(st.sampled_from(["reasoning", "precision", "own name"]), st.floats(0, 1))


def test_a_score_is_what_is_declared_and_nothing_where_nothing_is() -> None:
    model = a_model(capabilities={"reasoning": 0.7, "our own": 0.2})
    assert [score(model, name) for name in ("reasoning", "our own", "creativity", "speed")] == [0.7, 0.2, 0.0, 0.0]


def test_a_measured_speed_is_believed_after_some_calls() -> None:
    model = a_model(capabilities={"speed": 0.9})
    assert score(model, "speed", Measured(calls=MEASURED_CALLS, tokens_per_s=HALF_SPEED)) == 0.5
    assert score(model, "speed", Measured(calls=MEASURED_CALLS - 1, tokens_per_s=HALF_SPEED)) == 0.9
    assert score(model, "speed", Measured(calls=100)) == 0.9, "streams that told no speed"
    assert score(model, "reasoning", Measured(calls=100, tokens_per_s=9.0)) == 0.0


@pytest.mark.parametrize(
    ("window", "expected"), [(None, 0.0), (1, 0.0), (1_024, 0.0), (32 * 1_024, 0.5), (2**20, 1.0), (2**24, 1.0)]
)
def test_the_score_of_context_follows_from_the_window_where_it_is_not_declared(
    window: int | None, expected: float
) -> None:
    assert score(a_model(context_window=window), "context") == pytest.approx(expected)
    assert score(a_model(context_window=window, capabilities={"context": 0.3}), "context") == 0.3


def test_a_capability_that_is_asked_for_must_be_there_and_reach_the_least_score() -> None:
    model = a_model(capabilities={"reasoning": 0.5})
    assert lacks(model, {}) is None
    assert lacks(model, wanted_of(["reasoning"])) is None
    assert lacks(model, {"reasoning": 0.5}) is None
    assert lacks(model, {"reasoning": 0.51}) == "reasoning"
    assert lacks(model, wanted_of(["reasoning", "speed"])) == "speed"
    assert lacks(model, {"speed": 0.2}, Measured(calls=9, tokens_per_s=50.0)) is None


@given(SCORES, st.lists(st.sampled_from(["reasoning", "precision", "own name"]), unique=True))
def test_the_match_lies_between_the_least_and_the_greatest_score(scores: dict[str, float], wanted: list[str]) -> None:
    model = a_model(capabilities=scores)
    found = match(model, wanted)
    each = [score(model, name) for name in wanted] or [1.0]
    assert min(each) - 1e-9 <= found <= max(each) + 1e-9


def test_quality_without_a_wish_is_what_a_model_is_for_and_neither_its_speed_nor_its_window() -> None:
    model = a_model(capabilities={"reasoning": 0.8, "creativity": 0.6, "speed": 0.1, "context": 0.1})
    assert quality(model, []) == pytest.approx(0.7)
    assert quality(model, ["speed"]) == 0.1
    assert quality(a_model(capabilities={"speed": 1.0}), []) == 0.0
