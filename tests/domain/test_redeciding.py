"""A decision can be made again from what was recorded with it, and comes out the same to the last field."""

from typing import Any

import msgspec
from given import NOON, a_decision, a_model, a_moment, a_provider, a_rate, a_request, chat, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors.moment import Moment, Request
from trunkline_actors.money import Exceeded, Fund, Waiting
from trunkline_actors.pricing import FREE, rate_of
from trunkline_actors.redeciding import Recorded, Timeline, again, differences, under
from trunkline_actors.requests import AUTO
from trunkline_actors.routing import decide
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.policy import Configuration, Defaults, Policy, Require, Rule, When
from trunkline_events.rate import Rate
from trunkline_events.registry import Canary, ModelRegistered, Price, ProviderRegistered
from trunkline_events.thread import Books, RouteDecided
from trunkline_projections.circuits import Circuit
from trunkline_projections.policies import Override, Routing

EMPTY = Books()
NAMES = ["a", "b", "c", "d", *(f"n{number}" for number in range(20))]
MODEL_NAMES = st.sampled_from(NAMES)
SOME = st.lists(MODEL_NAMES, max_size=3, unique=True)
STRATEGIES = st.sampled_from([None, "cost", "latency", "quality", "balanced", "round_robin", "least_busy"])
SCORE = st.floats(0, 1, allow_nan=False)
CAPABILITIES = st.dictionaries(st.sampled_from(["reasoning", "speed", "own"]), SCORE, max_size=2)
PRICES = st.none() | st.builds(Price, input=st.sampled_from(["0", "1", "2.5"]), output=st.sampled_from(["1", "4"]))

CANARIES = st.none() | st.builds(
    Canary,
    version=st.just("2"),
    provider=st.sampled_from(["p", "q"]),
    upstream=st.just("new"),
    weight=st.sampled_from([0.1, 0.9]),
    price=PRICES,
)


@st.composite
def models(draw: st.DrawFn) -> list[Any]:
    names = NAMES[: draw(st.sampled_from([3, 6, 24]))]
    return [
        a_model(
            name,
            provider=draw(st.sampled_from(["p", "p", "q", "q", "gone"])),
            price=draw(PRICES),
            capabilities=draw(CAPABILITIES),
            tags=draw(st.lists(st.sampled_from(["fast", "eu"]), max_size=2, unique=True)),
            context_window=draw(st.sampled_from([None, None, 4, 1_000, 100_000])),
            canary=draw(CANARIES),
            status=draw(st.sampled_from(["enabled"] * 5 + ["disabled"])),
        )
        for name in names
    ]


OVERRIDES = [*[None] * 8, Override(model="b"), Override(model="b", until=NOON), Override(model="c", until=NOON + 9)]
REQUIRE = st.builds(
    Require,
    local_only=st.sampled_from([False, False, True]),
    tags=st.sampled_from([[], [], ["fast"]]),
    avoid=SOME,
    max_cost_usd=st.sampled_from([None, None, "0.01", "1"]),
)
RULES = st.builds(
    Rule,
    name=st.just("r"),
    when=st.builds(When, model=st.sampled_from([None, None, "auto", "b*"])),
    use=st.lists(st.sampled_from([*NAMES[:4], "fast", "eu"]), max_size=3, unique=True),
    optimize=STRATEGIES,
    fallbacks=SOME,
    require=REQUIRE,
    min_match=st.sampled_from([None, None, 0.2, 0.9]),
)
WEIGHED = st.builds(Rule, name=st.just("w"), weights=st.dictionaries(MODEL_NAMES, st.floats(0.1, 9), min_size=1))
POLICIES = st.builds(
    Policy,
    rules=st.lists(RULES | WEIGHED, max_size=1),
    defaults=st.builds(Defaults, optimize=STRATEGIES, fallbacks=SOME, percentile=st.sampled_from([50, 95])),
)
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "prefer": SOME,
        "fallbacks": SOME,
        "avoid": SOME,
        "optimize": st.sampled_from(["cost", "latency", "least_busy", "quality"]),
        "capabilities": st.lists(st.sampled_from(["reasoning", "speed"]), max_size=1) | CAPABILITIES,
        "clamp": st.booleans(),
        "max_cost_usd": st.sampled_from(["0.001", "0.5"]),
    },
)
MEASURED = st.dictionaries(
    MODEL_NAMES,
    st.builds(
        Measured,
        calls=st.integers(1, 50),
        success=SCORE,
        p50_ms=st.none() | st.floats(1, 10_000),
        p95_ms=st.none() | st.floats(1, 10_000),
        tokens_per_s=st.none() | st.floats(1, 500),
        in_flight=st.integers(0, 9),
    ),
    max_size=24,
)
FUNDS = st.lists(
    st.builds(
        Fund,
        scope=st.just("gateway"),
        slice=st.just("s/1"),
        free_nanos=st.integers(0, 10**10),
        possible_nanos=st.integers(0, 10**10),
        answer=st.sampled_from(
            [
                None,
                Waiting(code="budget_exceeded", message="w", scope="gateway", needed_nanos=10),
                Exceeded(code="budget_exceeded", message="x", scope="gateway", needed_nanos=10),
            ]
        ),
    ),
    max_size=1,
)


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    chosen = draw(models())
    providers = [a_provider("p"), a_provider("q", local=False)]
    moment = a_moment(*chosen, providers=providers)
    gateway = structs.replace(
        moment.gateway,
        routing=Routing(
            version=3,
            policy=draw(POLICIES),
            override=draw(st.sampled_from(OVERRIDES)),
        ),
        circuits=draw(
            st.sampled_from(
                [{}, {"q": Circuit(state="open", retry_at=NOON + 9)}, {"p": Circuit(state="open", retry_at=1.0)}]
            )
        ),
    )
    # As `Rates` has it: what has a price of its own has that, what is local nothing, the rest what a list says.
    listed = {name: a_rate(draw(st.integers(0, 9)), 3, version="list") for name in ("old", "new")}
    rates = {}
    for model in chosen:
        if model.provider == "gone":
            continue
        rates[model.id] = _rate(model.price, model.provider, gateway.registry.model_seq[model.id], listed["old"])
        if model.canary is not None:
            rates[f"{model.id}@2"] = _rate(
                model.canary.price, model.canary.provider, gateway.registry.model_seq[model.id], listed["new"]
            )
    return structs.replace(
        moment,
        gateway=gateway,
        rates=rates,
        draw=draw(st.floats(0, 1, exclude_max=True)),
        measured=draw(MEASURED),
        busy=draw(st.dictionaries(MODEL_NAMES, st.integers(0, 5), max_size=3)),
        forced=draw(st.sampled_from([*[None] * 9, "a"])),
        turns=dict.fromkeys(["", "r", "w"], draw(st.integers(0, 50))),
    )


def _rate(price: Price | None, provider: str, seq: int, listed: Rate) -> Rate:
    if price is not None:
        return rate_of(price, f"model@{seq}")
    return FREE if provider == "p" else listed


@st.composite
def requests(draw: st.DrawFn) -> Request:
    parsed = chat(draw(st.sampled_from([AUTO, AUTO, AUTO, "a"])), route=draw(WISHES), n=draw(st.integers(1, 2)))
    tried = draw(st.lists(MODEL_NAMES, max_size=2))
    request = a_request(parsed, *tried)
    return structs.replace(
        request,
        failures=tuple(draw(st.sampled_from(list(FailureClass))) for _ in tried),
        versions=tuple(draw(st.sampled_from(["1", "2"])) for _ in tried),
        rested=draw(st.integers(0, len(tried))),
        configuration=draw(
            st.just(Configuration())
            | st.builds(Configuration, sequence=st.just(4), model=MODEL_NAMES, preferences=WISHES)
        ),
    )


@settings(max_examples=400)
@given(requests(), moments(), FUNDS, st.sampled_from([None, None, 10**6, 10**10]))
def test_whatever_was_decided_is_decided_again(
    request: Request, moment: Moment, funds: list[Fund], limit: int | None
) -> None:
    books = Books(limit_nanos=limit, config_seq=request.configuration.sequence)
    decision = decide(books, request, moment, tuple(funds))
    if not isinstance(decision, RouteDecided):
        return
    stored = msgspec.json.decode(msgspec.json.encode(decision), type=RouteDecided)
    made = again(Recorded(thread=request.thread, decision=stored, books=books, gateway=moment.gateway))
    assert differences(stored, made) == []
    assert made == stored


def a_recorded(request: Request, moment: Moment, books: Books = EMPTY) -> Recorded:
    decision = decide(books, request, moment)
    assert isinstance(decision, RouteDecided), decision
    return Recorded(thread=request.thread, decision=decision, books=books, gateway=moment.gateway)


def test_a_model_behind_sixteen_that_were_too_dear_is_among_the_candidates() -> None:
    dear = [a_model(f"n{number}", price=Price(input="100", output="100")) for number in range(18)]
    moment = a_moment(
        *dear,
        a_model("cheap"),
        rates={model.id: a_rate(100, 100, version=f"model@{place}") for place, model in enumerate(dear, 1)}
        | {"cheap": FREE},
    )
    request = a_request(chat(AUTO, max_tokens=100, route={"prefer": [model.id for model in dear]}))
    made = a_recorded(request, moment, Books(limit_nanos=1_000))
    assert made.decision.model == "cheap"
    assert [one.model for one in made.decision.candidates][-2:] == ["n14", "cheap"]
    assert made.decision.left_out == {"preferred": 3}
    assert again(made) == made.decision


def test_what_was_left_out_stays_behind_though_its_statistics_were_not_recorded() -> None:
    models = [a_model(f"n{number}") for number in range(18)]
    measured = {model.id: Measured(calls=9, p50_ms=5_000.0 + place) for place, model in enumerate(models)}
    moment = a_moment(*models, rates={model.id: FREE for model in models})
    request = a_request(chat(AUTO, route={"optimize": "latency"}))
    made = a_recorded(request, structs.replace(moment, measured=measured))
    assert len(made.decision.stats) == 16
    assert again(made) == made.decision


def test_what_was_tampered_with_is_decided_otherwise() -> None:
    made = a_recorded(a_request(chat(AUTO)), a_moment(a_model("a"), a_model("b"), rates={"a": FREE, "b": FREE}))
    forged = structs.replace(made, decision=structs.replace(made.decision, model="b", reserve_nanos=7))
    assert differences(forged.decision, again(forged)) == ["model", "reserve_nanos"]
    gone = structs.replace(made, gateway=a_moment().gateway)
    (problem,) = differences(made.decision, again(gone))
    assert problem.startswith("refused: no enabled model")


def test_another_policy_chooses_otherwise_with_the_prices_of_that_time() -> None:
    moment = a_moment(a_model("a"), a_model("b"), rates={"a": FREE, "b": FREE})
    made = a_recorded(a_request(chat(AUTO)), moment)
    assert made.decision.model == "a"
    policy = Policy(rules=[Rule(name="r", use=["b"])])
    other = under(made, policy, {})
    assert isinstance(other, RouteDecided)
    assert (other.model, other.rule, other.policy_version) == ("b", "r", 0)


def test_the_prices_of_that_time_serve_for_models_that_were_not_looked_at() -> None:
    providers = [a_provider("p", local=False)]
    rates = {"a": a_rate(5, 5), "b": a_rate(1, 1)}
    made = a_recorded(a_request(chat("a")), a_moment(a_model("a"), a_model("b"), rates=rates, providers=providers))
    policy = Policy(rules=[Rule(name="r", when=When(model="a"), fallbacks=["b"])])
    other = under(made, policy, {"a": a_rate(9, 9), "b": a_rate(2, 2)})
    assert isinstance(other, RouteDecided)
    assert other.basis.rates == {"a": a_rate(5, 5), "b": a_rate(2, 2)}


def test_a_timeline_has_the_gateway_at_every_position() -> None:
    line = Timeline()
    line.add(recorded(ProviderRegistered(provider=a_provider("p")), 2, "p", "provider"))
    line.add(recorded(ModelRegistered(model=a_model("m")), 5, "m", "model"))
    line.add(recorded(a_decision(), 7, "t"))
    assert [len(line.at(sequence).registry.models) for sequence in (0, 2, 4, 5, 6, 99)] == [0, 0, 0, 1, 1, 1]
    assert [len(line.at(sequence).registry.providers) for sequence in (0, 1, 2, 99)] == [0, 0, 1, 1]
