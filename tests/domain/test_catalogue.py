"""List prices from genai-prices: what is known, and when; that a price in tiers is never taken too low."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, StartDateConstraint, TimeOfDateConstraint
from given import DAY, NOON
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors import catalogue
from trunkline_actors.catalogue import _PROVIDER_IDS, _nanos, listed
from trunkline_actors.pricing import UNLISTED, Listed
from trunkline_events.rate import Rate


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def rate_at(kind: str, upstream: str, now: float = NOON) -> Rate:
    rate = listed(kind, upstream, now).rate
    assert rate is not None
    return rate


def models_of(kind: str) -> list[ModelInfo]:
    return next(one for one in get_snapshot().providers if one.id == _PROVIDER_IDS[kind]).models


TIMED = sorted(
    (kind, model.id)
    for kind in _PROVIDER_IDS
    for model in models_of(kind)
    if isinstance(model.prices, list) and len(model.prices) > 1
)


@pytest.mark.parametrize(
    ("kind", "upstream"),
    [("openai", "gpt-4o"), ("anthropic", "claude-3-5-sonnet-20241022"), ("gemini", "gemini-1.5-pro")],
)
def test_a_well_known_model_has_a_price_with_the_catalogues_version(kind: str, upstream: str) -> None:
    rate = rate_at(kind, upstream)
    assert 0 < rate.cached_input_nanos <= rate.input_nanos < rate.output_nanos
    assert rate.version.startswith("genai-prices@")


def test_a_list_price_is_that_of_the_vendor() -> None:
    rate = rate_at("openai", "gpt-4o")
    assert (rate.input_nanos, rate.output_nanos) == (2_500_000_000, 10_000_000_000)


@pytest.mark.parametrize(
    ("kind", "upstream"),
    [("openai", "nobody-has-this"), ("scripted", "gpt-4o"), ("openai-compatible", "gpt-4o"), ("ollama", "llama3")],
)
def test_what_the_catalogue_does_not_know_has_no_price_ever(kind: str, upstream: str) -> None:
    assert listed(kind, upstream, NOON) == UNLISTED


def test_every_model_of_the_vendors_we_know_has_a_sound_price_or_none() -> None:
    for kind in _PROVIDER_IDS:
        rates = [rate for model in models_of(kind) if (rate := listed(kind, model.id, NOON).rate)]
        assert rates, f"{kind} has prices"
        for rate in rates:
            assert min(rate.input_nanos, rate.cached_input_nanos, rate.output_nanos) >= 0


def test_a_price_in_tiers_counts_at_its_dearest() -> None:
    rate = rate_at("gemini", "gemini-1.5-pro")
    assert rate.input_nanos == 2_500_000_000, "above 128,000 tokens it costs twice as much"


def test_a_price_finer_than_a_nano_dollar_is_rounded_up() -> None:
    assert _nanos(Decimal("0.0000000001")) == 1
    assert _nanos(Decimal("1.5")) == 1_500_000_000
    assert _nanos(None) is None


# -- with time ---------------------------------------------------------------------------------------------------------


def the_catalogue_says(monkeypatch: pytest.MonkeyPatch, *sets: tuple[Any, str]) -> None:
    """One model `openai/m` with these conditions and input prices."""
    prices = [ConditionalPrice(condition, prices=ModelPrice(input_mtok=Decimal(usd))) for condition, usd in sets]
    model = ModelInfo(id="m", match=models_of("openai")[0].match, prices=prices)

    class Snapshot:
        def find_provider_model(self, *_asked: object) -> tuple[None, ModelInfo]:
            return None, model

    monkeypatch.setattr("genai_prices.data_snapshot.get_snapshot", Snapshot)
    catalogue._entry.cache_clear()
    monkeypatch.setattr(catalogue, "version", lambda _name: "1")


@pytest.fixture(autouse=True)
def _forgets() -> Any:
    yield
    catalogue._entry.cache_clear()


FROM_MAY = StartDateConstraint(date(2026, 5, 1))
FROM_JUNE = StartDateConstraint(date(2026, 6, 1))
AT_DAY = TimeOfDateConstraint(time(1, tzinfo=UTC), time(4, 30, tzinfo=UTC))
AT_NIGHT = TimeOfDateConstraint(time(23), time(2))
BEIJING = timezone(timedelta(hours=8))
EARLY_IN_BEIJING = TimeOfDateConstraint(time(0, tzinfo=BEIJING), time(8, tzinfo=BEIJING))

DATED = ((None, "1"), (FROM_MAY, "2"), (FROM_JUNE, "3"))
DAILY = ((None, "1"), (AT_DAY, "2"))
NIGHTLY = ((None, "1"), (AT_NIGHT, "2"))
ABROAD = ((None, "1"), (EARLY_IN_BEIJING, "2"))
NONE_YET = ((FROM_MAY, "1"), (FROM_JUNE, "2"))


@pytest.mark.parametrize(
    ("sets", "now", "usd", "name", "since", "until"),
    [
        (DATED, "2026-04-30T23:59:59Z", 1, "#otherwise", None, "2026-05-01T00:00Z"),
        (DATED, "2026-05-01T00:00:00Z", 2, "#2026-05-01", "2026-05-01T00:00Z", "2026-06-01T00:00Z"),
        (DATED, "2026-05-01T01:00:00+02:00", 1, "#otherwise", None, "2026-05-01T00:00Z"),
        (DATED, "2027-01-01T00:00:00Z", 3, "#2026-06-01", "2026-06-01T00:00Z", None),
        (DAILY, "2026-05-01T00:59:59Z", 1, "#otherwise", "2026-04-30T04:30Z", "2026-05-01T01:00Z"),
        (DAILY, "2026-05-01T01:00:00Z", 2, "#01:00-04:30", "2026-05-01T01:00Z", "2026-05-01T04:30Z"),
        (DAILY, "2026-05-01T04:30:00Z", 1, "#otherwise", "2026-05-01T04:30Z", "2026-05-02T01:00Z"),
        (NIGHTLY, "2026-05-01T01:00Z", 2, "#23:00-02:00", "2026-04-30T23:00Z", "2026-05-01T02:00Z"),
        (ABROAD, "2026-05-01T17:00Z", 2, "#16:00-00:00", "2026-05-01T16:00Z", "2026-05-02T00:00Z"),
        (NONE_YET, "2026-01-01T00:00Z", 1, "#2026-05-01", None, "2026-05-01T00:00Z"),
        (((FROM_MAY, "1"),), "2026-01-01T00:00Z", 1, "", None, None),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_the_set_of_prices_that_applies_is_chosen_by_time(
    sets: tuple[tuple[Any, str], ...],
    now: str,
    usd: int,
    name: str,
    since: str | None,
    until: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    the_catalogue_says(monkeypatch, *sets)
    rate = Rate(
        input_nanos=usd * 10**9, cached_input_nanos=usd * 10**9, output_nanos=0, version=f"genai-prices@1{name}"
    )
    assert listed("openai", "m", moment(now)) == Listed(
        rate=rate,
        since=UNLISTED.since if since is None else moment(since),
        until=UNLISTED.until if until is None else moment(until),
    )


def test_a_model_with_no_set_of_prices_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    the_catalogue_says(monkeypatch)
    assert listed("openai", "m", NOON) == UNLISTED


def test_a_condition_of_a_later_release_is_asked_again_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnSundays:
        def active(self, when: datetime) -> bool:
            return when.weekday() == 6

    the_catalogue_says(monkeypatch, (None, "1"), (OnSundays(), "2"))
    saturday = listed("openai", "m", NOON + 30)
    assert (saturday.since, saturday.until) == (NOON, NOON + 60)
    sunday = listed("openai", "m", NOON + DAY)
    assert sunday.rate is not None
    assert (sunday.rate.input_nanos, sunday.rate.version) == (2 * 10**9, "genai-prices@1#OnSundays")


def test_deepseek_is_dearer_by_day_and_the_version_tells() -> None:
    peak = rate_at("deepseek", "deepseek-chat", moment("2026-11-21T12:00Z"))
    night = rate_at("deepseek", "deepseek-chat", moment("2026-11-21T20:00Z"))
    assert peak.input_nanos > night.input_nanos
    assert (peak.version.partition("#")[2], night.version.partition("#")[2]) == ("00:30-16:30", "otherwise")


def test_there_are_models_whose_price_depends_on_the_time() -> None:
    assert len(TIMED) > 20


TIMES = st.floats(moment("2024-01-01T00:00Z"), moment("2028-01-01T00:00Z"))


@given(st.sampled_from(TIMED), TIMES, st.floats(0, 1, exclude_max=True))
def test_the_price_is_the_one_genai_prices_would_take_and_holds_as_long_as_promised(
    which: tuple[str, str], now: float, share: float
) -> None:
    kind, upstream = which
    found = listed(kind, upstream, now)
    assert found.since <= now < found.until
    _, model = get_snapshot().find_provider_model(upstream, None, _PROVIDER_IDS[kind], None)
    prices = model.get_prices(datetime.fromtimestamp(now, UTC))
    assert (found.rate and found.rate.input_nanos) == _nanos(getattr(prices, "input_mtok", None))
    first, last = max(found.since, now - 400 * DAY), min(found.until, now + 400 * DAY)
    # Not the last microsecond: genai-prices is asked in whole ones.
    later = max(first, min(first + share * (last - first), last - 0.000_01))
    assert listed(kind, upstream, later) == found


def test_a_model_costs_the_same_over_the_responses_api() -> None:
    assert listed("openai", "responses/gpt-4.1", NOON) == listed("openai", "gpt-4.1", NOON)
    assert listed("openai", "responses/gpt-4.1", NOON).rate is not None
