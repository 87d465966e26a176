"""Finding models by what they can do: which fit, how well, and in which order."""

from typing import Any

import pytest
from given import a_model, a_provider, a_registry
from trunkline_actors.discovering import Discover, Found, discover
from trunkline_events.measured import Measured
from trunkline_events.refusal import Refused
from trunkline_projections.circuits import Circuit
from trunkline_projections.folds import Gateway

GATEWAY = Gateway(
    registry=a_registry(
        a_model("thinker", capabilities={"reasoning": 0.9, "speed": 0.2}, features=["tools", "thinking"]),
        a_model("writer", capabilities={"creativity": 0.8, "reasoning": 0.4}, tags=["eu"], context_window=1000),
        a_model("far", provider="cloud", capabilities={"reasoning": 0.9}, context_window=100_000),
        a_model("off", capabilities={"reasoning": 1.0}, status="disabled"),
        a_model("old", capabilities={"reasoning": 1.0}, status="retired"),
        providers=[a_provider("p"), a_provider("cloud", local=False)],
    ),
    circuits={"cloud": Circuit(state="open")},
)


def found(measured: dict[str, Measured] | None = None, **asked: Any) -> list[Found]:
    answer = discover(GATEWAY, measured or {}, Discover(**asked))
    assert not isinstance(answer, Refused), answer
    return answer[0]


@pytest.mark.parametrize(
    ("asked", "models"),
    [
        ({}, ["far", "thinker", "writer"]),
        ({"capability": "reasoning"}, ["far", "thinker", "writer"]),
        ({"capabilities": ["creativity"]}, ["writer"]),
        ({"capabilities": {"reasoning": 0.7}}, ["far", "thinker"]),
        ({"capabilities": ["creativity"], "capability": "reasoning"}, ["writer"]),
        ({"capability": "juggling"}, []),
        ({"features": ["tools"]}, ["thinker"]),
        ({"features": ["tools", "vision"]}, []),
        ({"tags": ["eu"]}, ["writer"]),
        ({"local_only": True}, ["thinker", "writer"]),
        ({"context_window": 1000}, ["far", "writer"]),
        ({"context_window": 1001}, ["far"]),
    ],
)
def test_enabled_models_that_fit_are_found_the_best_match_first(asked: dict[str, Any], models: list[str]) -> None:
    assert [one.model.id for one in found(**asked)] == models


def test_a_found_model_says_how_well_it_fits_and_how_its_provider_is() -> None:
    far, *_, last = found(capability="reasoning")
    assert (far.match, far.circuit, far.measured) == (0.9, "open", None)
    assert (last.match, last.scores["reasoning"], last.circuit) == (0.4, 0.4, "closed")


def test_the_measured_speed_counts_more_than_the_declared_one() -> None:
    measured = {"thinker": Measured(calls=100, tokens_per_s=50.0)}
    (one,) = found(measured, capabilities={"speed": 0.4})
    assert (one.match, one.scores["speed"], one.measured) == (0.5, 0.5, measured["thinker"])
    assert found(capabilities={"speed": 0.4}) == []


def test_no_more_are_shown_than_were_asked_for_and_all_are_counted() -> None:
    answer = discover(GATEWAY, {}, Discover(limit=1))
    assert not isinstance(answer, Refused)
    assert ([one.model.id for one in answer[0]], answer[1]) == (["far"], 3)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"capabilities": {"reasoning": 1.5}}, "capabilities"),
        ({"capabilities": {"reasoning": float("nan")}}, "capabilities"),
        ({"capability": ""}, "capabilities"),
        ({"features": ["smell"]}, "features"),
        ({"context_window": 0}, "context_window"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
    ],
)
def test_what_can_not_be_looked_for_is_refused_at_its_field(asked: dict[str, Any], param: str) -> None:
    answer = discover(GATEWAY, {}, Discover(**asked))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.param) == ("invalid_request", param)
