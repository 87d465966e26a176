"""The price catalogue, `genai-prices`: offline, and loaded when first needed, since that takes a moment.

A model may have several sets of prices: later ones from a date on, cheaper or dearer ones at some hours of the day.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

from trunkline_events.rate import Rate
from trunkline_events.registry import RESPONSES

from trunkline_actors.pricing import UNLISTED, Listed

_PROVIDER_IDS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "openrouter": "openrouter",
    "deepseek": "deepseek",
}
"""Our kinds of provider under the catalogue's names. Others serve who knows what, at who knows what price."""

KINDS = tuple(_PROVIDER_IDS)
"""The kinds of provider whose prices it has."""

_NANOS_A_DOLLAR = 1_000_000_000
_DAY = 86_400.0
_MINUTE = 60.0


def listed(kind: str, upstream: str, now: float) -> Listed:
    """The list price of a provider's model at a Unix time; no rate where there is none that is a plain price a token.

    Prices in tiers count at their dearest tier: never less than what will be charged.
    """
    entry = _entry(kind, upstream.removeprefix(RESPONSES))
    if len(entry.sets) < 2:
        return Listed(rate=entry.sets[0].rate) if entry.sets else UNLISTED
    moment = datetime.fromtimestamp(now, UTC)
    # As genai-prices chooses: the last set that applies, and the first one where none does.
    chosen = next((one for one in reversed(entry.sets) if one.applies(moment)), entry.sets[0])
    turns = entry.turns_about(now)
    return Listed(
        rate=chosen.rate,
        since=max((turn for turn in turns if turn <= now), default=UNLISTED.since),
        until=min((turn for turn in turns if turn > now), default=UNLISTED.until),
    )


class _Set(NamedTuple):
    """One set of a model's prices, and whether it applies at a time."""

    rate: Rate | None
    applies: Callable[[datetime], bool]


class _Entry(NamedTuple):
    """A model in the catalogue, and when another of its sets may come to apply.

    `dates` are Unix times, `hours` seconds after midnight UTC; `unsure`: some condition is none that we can read.
    """

    sets: tuple[_Set, ...] = ()
    dates: tuple[float, ...] = ()
    hours: tuple[float, ...] = ()
    unsure: bool = False

    def turns_about(self, now: float) -> list[float]:
        """Unix times before and after this one at which another set may come to apply, the nearest among them."""
        midnight = now // _DAY * _DAY
        daily = [midnight + day * _DAY + hour for hour in self.hours for day in (-1, 0, 1)]
        minute = now // _MINUTE * _MINUTE
        return [*self.dates, *daily, *([minute, minute + _MINUTE] if self.unsure else [])]


@lru_cache(maxsize=4096)
def _entry(kind: str, upstream: str) -> _Entry:
    provider_id = _PROVIDER_IDS.get(kind)
    if provider_id is None:
        return _Entry()
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, model = get_snapshot().find_provider_model(upstream, None, provider_id, None)
    except LookupError:
        return _Entry()
    release = f"genai-prices@{version('genai-prices')}"
    if not isinstance(model.prices, list):
        return _Entry(sets=(_Set(_rate(model.prices, release), _always),))
    conditions = [one.constraint for one in model.prices]
    names = [release if len(conditions) == 1 else f"{release}#{_name(condition)}" for condition in conditions]
    return _Entry(
        sets=tuple(
            _Set(_rate(one.prices, name), _always if one.constraint is None else one.constraint.active)
            for one, name in zip(model.prices, names, strict=True)
        ),
        dates=tuple(_midnight(start) for start in map(_start_date, conditions) if start is not None),
        hours=tuple(_of_day(hour) for condition in conditions for hour in _hours(condition)),
        unsure=any(c is not None and _start_date(c) is None and not _hours(c) for c in conditions),
    )


def _rate(prices: Any, release: str) -> Rate | None:
    given, output = _nanos(getattr(prices, "input_mtok", None)), _nanos(getattr(prices, "output_mtok", None))
    if given is None:
        return None
    cached = _nanos(getattr(prices, "cache_read_mtok", None))
    return Rate(
        input_nanos=given,
        cached_input_nanos=given if cached is None else cached,
        output_nanos=output or 0,
        version=release,
    )


def _nanos(price: Any) -> int | None:
    if price is None:
        return None
    tiers = getattr(price, "tiers", None)
    if tiers is not None:
        price = max([price.base, *(tier.price for tier in tiers)])
    return int((price * _NANOS_A_DOLLAR).to_integral_value(ROUND_CEILING))


# -- conditions, by their fields: their classes are costly to import, and those of later releases have other ones -----


def _always(_moment: datetime) -> bool:
    return True


def _start_date(condition: Any) -> date | None:
    start: date | None = getattr(condition, "start_date", None)
    return start


def _hours(condition: Any) -> tuple[time, ...]:
    return (condition.start_time, condition.end_time) if hasattr(condition, "start_time") else ()


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _of_day(hour: time) -> float:
    """Seconds after midnight UTC; a time without an offset is UTC, as genai-prices has it."""
    passed = timedelta(hours=hour.hour, minutes=hour.minute, seconds=hour.second, microseconds=hour.microsecond)
    return (passed - (hour.utcoffset() or timedelta())).total_seconds() % _DAY


def _name(condition: Any) -> str:
    """A set's part of the price version: `2026-01-01` from a date on, `01:00-04:00` at hours in UTC, `otherwise`."""
    if condition is None:
        return "otherwise"
    if (start := _start_date(condition)) is not None:
        return start.isoformat()
    minutes = [int(_of_day(hour)) // 60 for hour in _hours(condition)]
    return "-".join(f"{m // 60:02}:{m % 60:02}" for m in minutes) or type(condition).__name__
