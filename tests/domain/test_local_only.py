"""Data that must not leave: whatever is asked for, falls back, is forced or tried out, a local provider serves."""

from typing import Any

from given import a_model, a_moment, a_provider, a_rate, a_request, chat
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors.moment import Moment, with_attempt
from trunkline_actors.requests import AUTO
from trunkline_actors.routing import decide
from trunkline_events.failure import FailureClass
from trunkline_events.policy import Defaults, Policy, Require
from trunkline_events.refusal import Refused
from trunkline_events.registry import Canary, Model
from trunkline_events.thread import Books, RouteDecided
from trunkline_projections.policies import Routing

HERE = a_provider("here", local=True)
THERE = a_provider("there", local=False, data=["eu"])
LOCAL = {"local_only": True}


def trying(provider: str, own: str = "here") -> Model:
    """A model whose every request goes to its canary, where that may serve."""
    canary = Canary(version="2", provider=provider, upstream="new", weight=1.0)
    return a_model("m", provider=own, version="1", canary=canary)


def moment_of(*models: Model, **more: Any) -> Moment:
    moment = a_moment(*models, providers=[HERE, THERE], rates={f"{model.id}@2": a_rate() for model in models})
    return structs.replace(moment, **more)


def chosen(moment: Moment, route: dict[str, Any], model: str = "m") -> RouteDecided | Refused:
    decided = decide(Books(), a_request(chat(model, route=route)), moment)
    assert isinstance(decided, RouteDecided | Refused)
    return decided


def test_a_canary_at_a_provider_that_is_not_local_gets_no_request_whose_data_must_stay() -> None:
    moment = moment_of(trying("there"))
    free, kept = chosen(moment, {}), chosen(moment, LOCAL)
    assert isinstance(free, RouteDecided)
    assert isinstance(kept, RouteDecided)
    assert (free.provider, free.version) == ("there", "2")
    assert (kept.provider, kept.version) == ("here", "1")


def test_a_canary_at_a_local_provider_serves_them() -> None:
    kept = chosen(moment_of(trying("here")), LOCAL)
    assert isinstance(kept, RouteDecided)
    assert kept.version == "2"


def test_a_canary_at_a_provider_that_promises_too_little_gets_no_request_that_needs_it() -> None:
    moment = moment_of(trying("there"))
    asked = [chosen(moment, {"data": data}) for data in (["eu"], ["eu", "no-training"])]
    assert [one.version for one in asked if isinstance(one, RouteDecided)] == ["2", "1"]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Moment, dict[str, Any], str, list[tuple[str, str, FailureClass]], bool]:
    places = st.sampled_from(["here", "there"])
    models = []
    for number in range(draw(st.integers(1, 4))):
        canary = Canary(version="2", provider=draw(places), upstream="u", weight=draw(st.sampled_from([0.3, 1.0])))
        own = draw(st.none() | st.just(canary))
        models.append(a_model(f"m{number}", provider=draw(places), version="1", canary=own))
    names = [model.id for model in models]
    by_policy = draw(st.booleans())
    policy = Policy(defaults=Defaults(require=Require(local_only=by_policy), fallbacks=draw(st.permutations(names))))
    moment = moment_of(*models, draw=draw(st.floats(0, 1)), forced=draw(st.none() | st.sampled_from(names)))
    gateway = structs.replace(moment.gateway, routing=Routing(version=1, policy=policy))
    route = {"fallbacks": draw(st.lists(st.sampled_from(names), max_size=3)), "local_only": not by_policy}
    tried = draw(
        st.lists(
            st.tuples(st.sampled_from(names), st.sampled_from(["1", "2"]), st.sampled_from(list(FailureClass))),
            max_size=3,
        )
    )
    return structs.replace(moment, gateway=gateway), route, draw(st.sampled_from([AUTO, *names])), tried, by_policy


@given(worlds())
def test_whatever_is_asked_forced_or_failed_a_local_provider_serves_or_nobody(
    world: tuple[Moment, dict[str, Any], str, list[tuple[str, str, FailureClass]], bool],
) -> None:
    moment, route, model, tried, _ = world
    request = a_request(chat(model, route=route))
    for number, (name, version, failure) in enumerate(tried, 2):
        request = with_attempt(request, f"r-{number}", name, failure, version)
    decided = decide(Books(), request, moment)
    assert isinstance(decided, Refused) or (isinstance(decided, RouteDecided) and decided.provider == "here")
