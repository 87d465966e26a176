"""What the registered models cost at a time, and that it is worked out only when it can have changed."""

import math

import pytest
from given import NOON, a_model, a_provider, a_rate, a_registry
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from trunkline.host import make_rates
from trunkline_actors.pricing import CEILING, FREE, UNLISTED, Listed, PriceList
from trunkline_actors.rates import Rates, overridden
from trunkline_events.rate import Rate
from trunkline_events.registry import Model, Price

CHEAP, DEAR, OWN = a_rate(1, 1, version="cheap"), a_rate(2, 2, version="dear"), a_rate(3, 3, version="own")
PROVIDERS = [a_provider("p", kind="openai", local=False), a_provider("near", kind="ollama", local=True)]


class Clocked:
    """A price list in which `openai/timed` is dear in every other hour, and `openai/steady` always cheap."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def __call__(self, kind: str, upstream: str, now: float) -> Listed:
        self.asked.append((upstream, now))
        if kind != "openai" or upstream not in ("timed", "steady"):
            return UNLISTED
        if upstream == "steady":
            return Listed(rate=CHEAP)
        hour = now // 3600
        return Listed(rate=DEAR if hour % 2 else CHEAP, since=hour * 3600, until=(hour + 1) * 3600)


def rates_of(prices: PriceList, *models: Model, now: float = NOON) -> dict[str, Rate]:
    return dict(Rates(prices).at(a_registry(*models, providers=PROVIDERS), now))


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        (a_model(upstream="steady", price=Price(input="0", output="0")), a_rate(version="model@1")),
        (a_model(upstream="steady"), CHEAP),
        (a_model(upstream="steady", provider="near"), FREE),
        (a_model(upstream="unknown"), CEILING),
    ],
    ids=["its own", "the list's", "nothing, for a local provider", "the ceiling"],
)
def test_the_first_price_there_is_counts(model: Model, rate: Rate) -> None:
    assert rates_of(Clocked(), model) == {"m": rate}


def test_a_model_whose_provider_is_gone_has_no_rate() -> None:
    assert rates_of(Clocked(), a_model(provider="gone")) == {}


def test_the_ceiling_can_be_another() -> None:
    registry = a_registry(a_model(), providers=PROVIDERS)
    assert Rates(Clocked(), OWN).at(registry, NOON) == {"m": OWN}


def test_without_prices_of_the_hour_the_same_mapping_serves_for_ever() -> None:
    prices = Clocked()
    rates, registry = Rates(prices), a_registry(a_model(upstream="steady"), a_model("n"), providers=PROVIDERS)
    first = rates.at(registry, NOON)
    assert rates.at(registry, NOON + 10**9) is first
    assert rates.at(registry, 0.0) is first
    assert len(prices.asked) == 2


def test_a_price_that_changes_is_asked_for_when_it_does_and_not_before() -> None:
    prices = Clocked()
    rates, registry = Rates(prices), a_registry(a_model(upstream="timed"), providers=PROVIDERS)
    seen = [rates.at(registry, NOON + minute * 60)["m"] for minute in range(180)]
    assert seen == [CHEAP] * 60 + [DEAR] * 60 + [CHEAP] * 60
    assert [now for _, now in prices.asked] == [NOON, NOON + 3600, NOON + 7200]


def test_a_clock_that_is_set_back_brings_back_the_price_of_then() -> None:
    rates, registry = Rates(Clocked()), a_registry(a_model(upstream="timed"), providers=PROVIDERS)
    assert rates.at(registry, NOON + 3600) == {"m": DEAR}
    assert rates.at(registry, NOON + 3599) == {"m": CHEAP}


def test_a_models_own_price_makes_the_hour_of_the_list_irrelevant() -> None:
    prices = Clocked()
    model = a_model(upstream="timed", price=Price(input="1", output="1"))
    rates, registry = Rates(prices), a_registry(model, providers=PROVIDERS)
    assert rates.at(registry, NOON) is rates.at(registry, NOON + 3600)
    assert prices.asked == []


def test_the_same_mapping_serves_where_a_turn_changed_nothing() -> None:
    def turns(_kind: str, _upstream: str, now: float) -> Listed:
        return Listed(rate=CHEAP, since=now, until=now + 1)

    rates, registry = Rates(turns), a_registry(a_model(), providers=PROVIDERS)
    assert rates.at(registry, NOON) is rates.at(registry, NOON + 1)


def test_a_change_of_the_registry_is_seen_at_once() -> None:
    rates, registry = Rates(Clocked()), a_registry(a_model(upstream="steady"), providers=PROVIDERS)
    assert rates.at(registry, NOON) == {"m": CHEAP}
    assert rates.at(a_registry(a_model(upstream="steady"), a_model("n"), providers=PROVIDERS), NOON) == {
        "m": CHEAP,
        "n": CEILING,
    }
    again = structs.replace(registry, models={})
    assert rates.at(again, NOON) == {}


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 86_400)), max_size=30))
def test_what_is_remembered_is_never_another_than_what_would_be_worked_out(asks: list[tuple[int, float]]) -> None:
    registries = [
        a_registry(a_model("a", upstream="timed"), a_model("b", upstream="steady"), providers=PROVIDERS),
        a_registry(a_model("a", upstream="steady"), a_model("c"), providers=PROVIDERS),
    ]
    rates = Rates(Clocked())
    for which, now in asks:
        assert rates.at(registries[which], now) == Rates(Clocked()).at(registries[which], now)


# -- overrides and the ceiling, from the settings ----------------------------------------------------------------------


def test_an_override_comes_before_the_list_whatever_the_time() -> None:
    prices = overridden({"openai/timed": OWN}, Clocked())
    assert prices("openai", "timed", NOON) == Listed(rate=OWN, since=-math.inf, until=math.inf)
    assert prices("openai", "steady", NOON).rate == CHEAP
    assert prices("ollama", "timed", NOON) == UNLISTED


PRICES = {
    "openai/gpt-4o": Price(input="2", output="8.00"),
    "openrouter/deepseek/chat": Price(input="0.27", output="1.1", cached_input="0.07"),
    "openai-compatible/llama": Price(input="0", output="0"),
}


@pytest.mark.parametrize(
    ("kind", "upstream", "given", "cached", "output", "version"),
    [
        ("openai", "gpt-4o", 2, 2, 8, "override@2/8"),
        ("openrouter", "deepseek/chat", 0.27, 0.07, 1.1, "override@0.27/1.1/0.07"),
        ("openai-compatible", "llama", 0, 0, 0, "override@0/0"),
        ("openai-compatible", "other", 40, 40, 160, "ceiling@40/160"),
    ],
)
def test_the_version_of_a_price_from_the_settings_is_the_price(
    kind: str, upstream: str, given: float, cached: float, output: float, version: str
) -> None:
    rates = make_rates(PRICES, Price(input="40", output="160"))
    registry = a_registry(a_model(upstream=upstream), providers=[a_provider(kind=kind, local=False)])
    (rate,) = rates.at(registry, NOON).values()
    assert rate == Rate(
        input_nanos=round(given * 10**9),
        cached_input_nanos=round(cached * 10**9),
        output_nanos=round(output * 10**9),
        version=version,
    )


def test_no_override_outweighs_a_models_own_price() -> None:
    model = a_model(upstream="gpt-4o", price=Price(input="5", output="9"))
    rates = make_rates(PRICES, None).at(a_registry(model, providers=PROVIDERS), NOON)
    assert rates["m"].version == "model@1"


def test_without_settings_the_catalogue_and_our_own_ceiling_count() -> None:
    models = (a_model("a", upstream="gpt-4o"), a_model("b", upstream="nobody-has-this"))
    rates = make_rates({}, None).at(a_registry(*models, providers=PROVIDERS), NOON)
    assert rates["a"].version.startswith("genai-prices@")
    assert rates["b"] == CEILING


def test_a_price_for_a_kind_that_nobody_has_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    make_rates({"opnai/gpt-4o": Price(input="1", output="1")}, None)
    said = capsys.readouterr()
    assert "opnai/gpt-4o" in said.out + said.err
