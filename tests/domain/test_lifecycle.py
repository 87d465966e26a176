"""Versions of a model: what is deployed, tried out and promoted, and what never happens whatever the commands."""

from typing import Any

import pytest
from given import a_model, a_provider, a_registry
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.lifecycle import DeployModel, deploy, promote
from trunkline_actors.registry import remove_model, remove_provider, set_model_status, update_model
from trunkline_events.refusal import Refused
from trunkline_events.registry import Canary, Model, ModelDeployed, ModelUpdated, Price
from trunkline_projections.models import Registry, evolve

PRICE = Price(input="1", output="2")
TRIED = Canary(version="2", provider="q", upstream="new", weight=0.25, price=PRICE)
PROVIDERS = [a_provider("p"), a_provider("q")]


def registry(**more: Any) -> Registry:
    return a_registry(a_model("m", price=PRICE, **more), providers=PROVIDERS)


def deployed(state: Registry, version: str, **more: Any) -> Model:
    decision = deploy(state, DeployModel(id="m", version=version, **more))
    assert isinstance(decision, ModelDeployed), decision
    return decision.model


def refused(decision: object) -> Refused:
    assert isinstance(decision, Refused), decision
    return decision


# -- deploying


@pytest.mark.parametrize("weight", [None, 1.0, 1])
def test_a_version_without_a_share_serves_at_once(weight: float | None) -> None:
    assert deployed(registry(tags=["a"]), "2", weight=weight, upstream="new", provider="q") == a_model(
        "m", version="2", upstream="new", provider="q", price=PRICE, tags=["a"]
    )


def test_a_version_with_a_share_is_a_canary_and_takes_what_it_does_not_name_from_the_current_one() -> None:
    model = deployed(registry(), "2", weight=0.1)
    assert model == a_model(
        "m", price=PRICE, canary=Canary(version="2", provider="p", upstream="m", weight=0.1, price=PRICE)
    )


def test_a_price_of_null_is_none_of_its_own() -> None:
    assert deployed(registry(), "2", weight=0.1, price=None).canary == Canary(
        version="2", provider="p", upstream="m", weight=0.1
    )
    assert deployed(registry(), "2", price=None).price is None


def test_the_canarys_version_again_moves_its_share_and_keeps_the_rest_of_it() -> None:
    assert deployed(registry(canary=TRIED), "2", weight=0.5).canary == Canary(
        version="2", provider="q", upstream="new", weight=0.5, price=PRICE
    )


def test_the_canarys_version_without_a_share_is_promoted() -> None:
    model = deployed(registry(canary=TRIED), "2")
    assert (model.version, model.provider, model.upstream, model.canary) == ("2", "q", "new", None)


def test_the_current_version_again_ends_the_canary() -> None:
    assert deployed(registry(canary=TRIED), "1") == a_model("m", price=PRICE)


def test_another_canary_takes_the_place_of_the_first() -> None:
    canary = deployed(registry(canary=TRIED), "3", weight=0.5).canary
    assert canary == Canary(version="3", provider="p", upstream="m", weight=0.5, price=PRICE)


def test_a_whole_deployment_ends_the_canary() -> None:
    assert deployed(registry(canary=TRIED), "3").canary is None


def test_what_is_deployed_so_already_is_not_deployed_again() -> None:
    assert deploy(registry(), DeployModel(id="m", version="1")) is None
    assert deploy(registry(canary=TRIED), DeployModel(id="m", version="2", weight=0.25)) is None


def test_a_disabled_model_gets_a_version_and_stays_disabled() -> None:
    assert deployed(registry(status="disabled"), "2").status == "disabled"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"id": "x"}, "model_not_found", "id"),
        ({"version": ""}, "invalid_request", "version"),
        ({"version": "a\nb"}, "invalid_request", "version"),
        ({"weight": 0}, "invalid_request", "weight"),
        ({"weight": 1.1}, "invalid_request", "weight"),
        ({"weight": -0.5}, "invalid_request", "weight"),
        ({"weight": float("nan")}, "invalid_request", "weight"),
        ({"provider": "x"}, "invalid_request", "provider"),
        ({"provider": "x", "weight": 0.5}, "invalid_request", "provider"),
        ({"upstream": ""}, "invalid_request", "upstream"),
        ({"upstream": "", "weight": 0.5}, "invalid_request", "upstream"),
        ({"price": Price(input="x", output="1")}, "invalid_request", "price"),
        ({"price": Price(input="x", output="1"), "weight": 0.5}, "invalid_request", "price"),
        ({"version": "1", "weight": 0.5}, "invalid_request", "version"),
        ({"version": "1", "upstream": "other"}, "conflict", "version"),
    ],
)
def test_a_deployment_that_makes_no_sense_is_refused_at_its_field(
    fields: dict[str, Any], code: str, param: str
) -> None:
    found = refused(deploy(registry(), DeployModel(**{"id": "m", "version": "2", **fields})))
    assert (found.code, found.param) == (code, param)


def test_nothing_is_deployed_to_a_retired_model() -> None:
    state = registry(status="retired", canary=TRIED)
    assert refused(deploy(state, DeployModel(id="m", version="2"))).code == "conflict"
    assert refused(promote(state, "m", None)).code == "conflict"
    assert refused(update_model(state, "m", {"tags": ["a"]}, None)).code == "conflict"


# -- promoting


def test_a_promoted_canary_is_the_model() -> None:
    assert promote(registry(canary=TRIED), "m", "good") == ModelDeployed(
        model=a_model("m", version="2", provider="q", upstream="new", price=PRICE), reason="good"
    )


def test_a_model_without_a_canary_has_nothing_to_promote() -> None:
    assert "deploy a version with a weight" in refused(promote(registry(), "m", None)).message
    assert refused(promote(registry(), "x", None)).code == "model_not_found"


# -- canaries and everything else


def test_an_update_keeps_the_canary_and_can_not_change_it() -> None:
    decision = update_model(registry(canary=TRIED), "m", {"tags": ["a"]}, None)
    assert isinstance(decision, ModelUpdated)
    assert (decision.model.canary, decision.changed) == (TRIED, ["tags"])
    assert refused(update_model(registry(), "m", {"canary": None}, None)).param == "canary"


def test_an_update_does_not_give_a_model_its_canarys_version() -> None:
    assert refused(update_model(registry(canary=TRIED), "m", {"version": "2"}, None)).param == "version"


def test_a_provider_that_serves_a_canary_can_not_be_removed() -> None:
    found = refused(remove_provider(registry(canary=TRIED), "q", None))
    assert (found.code, found.metadata) == ("conflict", {"models": ["m"]})


# -- whatever the commands

VERSIONS = st.sampled_from(["1", "2", "3", ""])
WEIGHTS = st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.5]) | st.floats(-1, 2)
COMMANDS = st.one_of(
    st.tuples(st.just("deploy"), VERSIONS, WEIGHTS, st.sampled_from([None, "p", "q", "x"])),
    st.tuples(st.just("promote")),
    st.tuples(st.just("update"), st.sampled_from(["version", "provider", "canary", "upstream"]), VERSIONS),
    st.tuples(st.sampled_from(["enable", "disable", "disable", "retire"])),
    st.tuples(st.just("remove-provider"), st.sampled_from(["p", "q"])),
    st.tuples(st.just("remove")),
)


def decided(state: Registry, command: tuple[Any, ...]) -> Any:
    match command:
        case ("deploy", version, weight, provider):
            return deploy(state, DeployModel(id="m", version=version, weight=weight, provider=provider))
        case ("promote",):
            return promote(state, "m", None)
        case ("update", field, value):
            return update_model(state, "m", {field: value}, None)
        case ("remove-provider", provider):
            return remove_provider(state, provider, None)
        case ("remove",):
            return remove_model(state, "m", None)
        case (verb,):
            return set_model_status(state, "m", verb, None)


@given(st.lists(COMMANDS, max_size=20))
def test_whatever_the_commands_a_model_makes_sense_and_a_retired_one_never_changes(
    commands: list[tuple[Any, ...]],
) -> None:
    state = registry()
    for sequence, command in enumerate(commands, 10):
        before, fact = state.models.get("m"), decided(state, command)
        if fact is None or isinstance(fact, Refused):
            continue
        state = evolve(state, fact, sequence)
        model = state.models.get("m")
        if before is None or model is None:
            continue
        if before.status == "retired":
            assert model == before
        assert model.version
        assert model.provider in state.providers
        if model.canary is not None:
            assert 0 < model.canary.weight < 1
            assert model.canary.version != model.version
            assert model.canary.provider in state.providers
