"""The read models that people query: what each event does to which table. Pure and total, as every fold here.

Money is whole nano-dollars, durations are whole microseconds, days and times are UTC. What an event names is what is
counted; nothing is looked up elsewhere, so that each table follows from the log alone.
"""

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import assert_never

import msgspec
from trunkline_events.envelope import RecordedEvent
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import (
    Aborted,
    AttemptFailed,
    BudgetWarned,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadConfigured,
    ThreadEvent,
    ThreadFact,
    UsageRecorded,
)

from trunkline_projections.sql_tables import Change, Column, Table, Value

VERSION = 1
"""Higher with every change of what a table means or of how it is computed; a view of a lower one is built anew."""

_MOST = 2**63 - 1
_MOST_OF_ONE = 2**53
"""What one event adds at most: nine million dollars. A sum of garbage must not end the projection."""
_LAST_SECOND = 253_402_300_799.0
_MOST_MS = float(2**40)


def _texts(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in names)


def _wholes(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "whole") for name in names)


_OUTCOMES = ("attempts", "answered", "aborted", "failed", "orphaned")
_TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
_USE = (*_OUTCOMES, *_TOKENS, "cost_nanos")
_LAST = (*_wholes("last_sequence"), *_texts("last_time"))
_WHOSE = (*_texts("time", "thread", "request_id", "attempt_id"), *_wholes("attempt"))

THREAD_TOTALS = Table(
    name="thread_totals",
    key=_texts("thread"),
    sums=("requests", "refused", *_USE),
    lasts=(
        *_LAST,
        *_wholes("settled_nanos", "reserved_nanos", "limit_nanos", "open_attempts"),
        *_texts("budget_window", "budget_period"),
    ),
)
USAGE_BY_MODEL = Table(name="usage_by_model", key=_texts("model"), sums=_USE, lasts=_LAST)
USAGE_BY_PROVIDER = Table(name="usage_by_provider", key=_texts("provider"), sums=_USE, lasts=_LAST)
USAGE_BY_DAY = Table(name="usage_by_day", key=_texts("day", "model", "provider"), sums=_USE, lasts=_LAST)
ROUTE_DECISIONS = Table(
    name="route_decisions",
    key=_wholes("sequence"),
    lasts=(
        *_WHOSE,
        *_texts("operation", "asked_model", "model", "provider"),
        *_wholes("reserve_nanos", "max_tokens", "input_bound", "policy_version", "log_seq"),
        *_texts("price_version", "forced_model", "candidates", "left_out"),
    ),
)
FAILURES = Table(
    name="failures",
    key=_wholes("sequence"),
    lasts=(
        *_WHOSE,
        *_texts("kind", "failure", "model", "provider"),
        *_wholes("status", "latency_us", "cost_nanos"),
    ),
)
LATENCY = Table(
    name="latency", key=(*_texts("day", "model", "provider", "measure"), *_wholes("below_us")), sums=("samples",)
)

TABLES = (THREAD_TOTALS, USAGE_BY_MODEL, USAGE_BY_PROVIDER, USAGE_BY_DAY, ROUTE_DECISIONS, FAILURES, LATENCY)


def schema() -> str:
    """A hash of the tables and of VERSION: a view of another one is not this view."""
    return hashlib.sha256(msgspec.json.encode((VERSION, TABLES))).hexdigest()[:16]


def changes(event: RecordedEvent) -> list[Change]:
    """The rows this event adds or changes. What isn't about threads changes none, nor does what nobody knows."""
    if not isinstance(event.body, ThreadEvent):
        return []
    return _changes(event, event.body, time_of(event.time))  # type: ignore[arg-type]  # every one of them is a fact


def _changes(event: RecordedEvent, fact: ThreadFact, at: str) -> list[Change]:
    match fact:
        case RouteDecided():
            used = _used(event, fact, at, 0, requests=int(fact.attempt == 1))
            used.append(_decision(event, fact, at))
            return used
        case UsageRecorded():
            found = _used(event, fact, at, 1, fact.cost_nanos)
            found.append(_latency(fact, at, "latency", fact.latency_ms))
            if fact.ttft_ms is not None:
                found.append(_latency(fact, at, "ttft", fact.ttft_ms))
            if fact.partial:
                found.append(_failure(event, fact, at, "cut", fact.finish))
            return found
        case Aborted():
            return _used(event, fact, at, 2, fact.cost_nanos)
        case AttemptFailed():
            return [*_used(event, fact, at, 3), _failure(event, fact, at, "failed", fact.failure)]
        case Orphaned():
            used = _used(event, fact, at, 4, fact.cost_nanos)
            return [*used, _failure(event, fact, at, "orphaned", "orphaned")]
        case RequestRefused():
            return [_totals(event, fact, (0, 1, *_NOTHING), (event.sequence, at)), _refusal(event, fact, at)]
        case ThreadConfigured() | BudgetWarned():
            return [_totals(event, fact, (0, 0, *_NOTHING), (event.sequence, at))]
        case _:  # pragma: no cover
            assert_never(fact)


# -- what becomes of an event in one table -----------------------------------------------------------------------------

_NOTHING = (0,) * len(_USE)
_ONE = [tuple(int(place == outcome) for place in range(len(_OUTCOMES))) for outcome in range(len(_OUTCOMES))]
_NO_TOKENS = (0,) * len(_TOKENS)

_Attempt = RouteDecided | UsageRecorded | Aborted | AttemptFailed | Orphaned


def _used(
    event: RecordedEvent, fact: _Attempt, at: str, outcome: int, cost: int = 0, *, requests: int = 0
) -> list[Change]:
    """What an attempt, or its end, comes to: for its thread, its model, its provider and its day."""
    tokens = _NO_TOKENS
    if isinstance(fact, UsageRecorded | Aborted):
        usage = fact.usage
        tokens = (
            _amount(usage.input_tokens),
            _amount(usage.cached_input_tokens),
            _amount(usage.output_tokens),
            _amount(usage.reasoning_tokens),
        )
    use, last = (*_ONE[outcome], *tokens, _amount(cost)), (event.sequence, at)
    model, provider = _clean(fact.model), _clean(fact.provider)
    return [
        _totals(event, fact, (requests, 0, *use), last),
        Change(USAGE_BY_MODEL, (model,), use, last),
        Change(USAGE_BY_PROVIDER, (provider,), use, last),
        Change(USAGE_BY_DAY, (at[:10], model, provider), use, last),
    ]


def _totals(event: RecordedEvent, fact: ThreadEvent, sums: tuple[int, ...], last: tuple[Value, ...]) -> Change:
    if event.aggregate == NO_THREAD:  # there the books are those of one request, and no state of anything
        return Change(THREAD_TOTALS, (NO_THREAD,), sums, (*last, None, None, None, None, None, None))
    books = (
        _number(fact.settled_nanos),
        _number(fact.reserved_nanos),
        None if fact.limit_nanos is None else _number(fact.limit_nanos),
        len(fact.open),
        fact.window,
        _clean(fact.period),
    )
    return Change(THREAD_TOTALS, (_clean(event.aggregate),), sums, (*last, *books))


def _decision(event: RecordedEvent, fact: RouteDecided, at: str) -> Change:
    asked = fact.asked
    lasts = (
        *(at, _clean(event.aggregate), _clean(fact.request_id), _clean(fact.attempt_id), _number(fact.attempt)),
        *(asked.operation, _clean(asked.model), _clean(fact.model), _clean(fact.provider)),
        _number(fact.reserve_nanos),
        None if fact.max_tokens is None else _number(fact.max_tokens),
        *(_number(asked.input_bound), _number(fact.policy_version), _number(fact.log_seq), _clean(fact.price_version)),
        None if fact.override is None else _clean(fact.override),
        *(_json(fact.candidates), _json(fact.left_out)),
    )
    return Change(ROUTE_DECISIONS, (event.sequence,), (), lasts)


def _failure(
    event: RecordedEvent, fact: UsageRecorded | AttemptFailed | Orphaned, at: str, kind: str, failure: str
) -> Change:
    lasts = (
        *(at, _clean(event.aggregate), _clean(fact.request_id), _clean(fact.attempt_id), _number(fact.attempt)),
        *(kind, _clean(failure), _clean(fact.model), _clean(fact.provider)),
        _number(fact.status) if isinstance(fact, AttemptFailed) and fact.status is not None else None,
        None if isinstance(fact, Orphaned) else _micros(fact.latency_ms),
        0 if isinstance(fact, AttemptFailed) else _amount(fact.cost_nanos),
    )
    return Change(FAILURES, (event.sequence,), (), lasts)


def _refusal(event: RecordedEvent, fact: RequestRefused, at: str) -> Change:
    whose = (at, _clean(event.aggregate), _clean(fact.request_id), None, None)
    why = ("refused", _clean(fact.code), _clean(fact.asked.model), None)
    return Change(FAILURES, (event.sequence,), (), (*whose, *why, None, None, 0))


def _latency(fact: UsageRecorded, at: str, measure: str, milliseconds: float) -> Change:
    key = (at[:10], _clean(fact.model), _clean(fact.provider), measure, bucket_of(_micros(milliseconds)))
    return Change(LATENCY, key, (1,))


def bucket_of(micros: int) -> int:
    """The bound, in microseconds, of the bucket that a duration falls below: at most 1/16 above it, and whole."""
    shift = max(0, micros.bit_length() - 5)
    return ((micros >> shift) + 1) << shift


# -- what any database can hold ----------------------------------------------------------------------------------------


def time_of(seconds: float) -> str:
    """Unix time as RFC 3339 in UTC, to the microsecond; times no calendar has are brought to the nearest it has."""
    if not 0 <= seconds <= _LAST_SECOND:
        seconds = min(max(seconds, 0.0), _LAST_SECOND)
    micros = round(seconds * 1_000_000)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _amount(value: int) -> int:
    return value if -_MOST_OF_ONE <= value <= _MOST_OF_ONE else min(max(value, -_MOST_OF_ONE), _MOST_OF_ONE)


def _number(value: int) -> int:
    return value if -_MOST <= value <= _MOST else min(max(value, -_MOST), _MOST)


def _micros(milliseconds: float) -> int:
    return round(min(max(milliseconds, 0.0), _MOST_MS) * 1000)


def _clean(text: str) -> str:
    """PostgreSQL holds no NUL in text; both stores must hold the same."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
