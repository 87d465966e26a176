"""The read models that people query: what each event does to which table. Pure and total, as every fold here.

Money is whole nano-dollars, durations are whole microseconds, days and times are UTC. What an event names is what is
counted, and nothing is looked up elsewhere, so that each table follows from the log alone. One thing is remembered
meanwhile: whose an attempt under way is, and what it reserved (`under_way`).
"""

import hashlib
from typing import assert_never

import msgspec
from trunkline_events.budget import BudgetEvent
from trunkline_events.envelope import RecordedEvent
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import (
    Aborted,
    AnswerReused,
    AttemptFailed,
    BudgetWarned,
    Ending,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadConfigured,
    ThreadEvent,
    ThreadFact,
    UsageRecorded,
)

from trunkline_projections.sql_budgets import BUDGETS, budget_change
from trunkline_projections.sql_tables import Change, Gone, Table, Value, texts, wholes
from trunkline_projections.sql_values import amount, as_json, clean, micros, number, share, time_of
from trunkline_projections.under_way import OPEN_ATTEMPTS, Part, UnderWay, begin, end, key_of

VERSION = 3
"""Higher with every change of what a table means or of how it is computed; a view of a lower one is built anew."""

_OUTCOMES = ("attempts", "answered", "aborted", "failed", "orphaned")
_TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
_USE = (*_OUTCOMES, *_TOKENS, "cost_nanos")
_USE_AND_NOW = (*_USE, "reserved_nanos", "open_attempts")
_LAST = (*wholes("last_sequence"), *texts("last_time"))
_WHOSE = (*texts("time", "thread", "key", "request_id", "attempt_id"), *wholes("attempt"))

THREAD_TOTALS = Table(
    name="thread_totals",
    key=texts("thread"),
    sums=("requests", "refused", *_USE),
    lasts=(
        *_LAST,
        *wholes("settled_nanos", "reserved_nanos", "limit_nanos", "open_attempts"),
        *texts("budget_window", "budget_zone", "budget_period", "warn_at"),
        *wholes("warned"),
    ),
)
USAGE_BY_KEY = Table(name="usage_by_key", key=texts("key"), sums=_USE_AND_NOW, lasts=_LAST)
USAGE_BY_MODEL = Table(name="usage_by_model", key=texts("model"), sums=_USE_AND_NOW, lasts=_LAST)
USAGE_BY_PROVIDER = Table(name="usage_by_provider", key=texts("provider"), sums=_USE_AND_NOW, lasts=_LAST)
USAGE_BY_DAY = Table(name="usage_by_day", key=texts("day", "key", "model", "provider"), sums=_USE, lasts=_LAST)
ROUTE_DECISIONS = Table(
    name="route_decisions",
    key=wholes("sequence"),
    lasts=(
        *_WHOSE,
        *texts("operation", "asked_model", "model", "provider"),
        *wholes("reserve_nanos", "max_tokens", "input_bound", "policy_version", "log_seq"),
        *texts("price_version", "forced_model", "candidates", "left_out"),
    ),
)
FAILURES = Table(
    name="failures",
    key=wholes("sequence"),
    lasts=(
        *_WHOSE,
        *texts("kind", "failure", "model", "provider"),
        *wholes("status", "latency_us", "cost_nanos"),
    ),
)
LATENCY = Table(
    name="latency", key=(*texts("day", "model", "provider", "measure"), *wholes("below_us")), sums=("samples",)
)

TABLES = (
    THREAD_TOTALS,
    *(USAGE_BY_KEY, USAGE_BY_MODEL, USAGE_BY_PROVIDER, USAGE_BY_DAY),
    *(OPEN_ATTEMPTS, BUDGETS, ROUTE_DECISIONS, FAILURES, LATENCY),
)


def schema() -> str:
    """A hash of the tables and of VERSION: a view of another one is not this view."""
    return hashlib.sha256(msgspec.json.encode((VERSION, TABLES))).hexdigest()[:16]


def changes(event: RecordedEvent, under_way: UnderWay) -> list[Change | Gone]:
    """The rows this event adds, changes or takes out, after those before it left `under_way`, which is changed too.

    What is about neither threads nor budgets changes none, nor does what nobody knows.
    """
    if isinstance(event.body, ThreadEvent):
        fact: ThreadFact = event.body  # type: ignore[assignment]  # every one of them is a fact
        return _changes(event, fact, time_of(event.time), under_way)
    if isinstance(event.body, BudgetEvent):
        return [budget_change(event, event.body, time_of(event.time))]
    return []


def _changes(event: RecordedEvent, fact: ThreadFact, at: str, under_way: UnderWay) -> list[Change | Gone]:
    match fact:
        case RouteDecided():
            part, found = begin(under_way, event, fact, at)
            found += _used(event, fact, at, part, 0, requests=int(fact.attempt == 1))
            found.append(_decision(event, fact, at))
        case UsageRecorded():
            part, found = end(under_way, fact)
            found += _used(event, fact, at, part, 1, fact.cost_nanos)
            found.append(_latency(part, at, "latency", fact.latency_ms))
            if fact.ttft_ms is not None:
                found.append(_latency(part, at, "ttft", fact.ttft_ms))
            if fact.partial:
                found.append(_failure(event, fact, at, part, "cut", fact.finish))
        case Aborted():
            part, found = end(under_way, fact)
            found += _used(event, fact, at, part, 2, fact.cost_nanos)
        case AttemptFailed():
            part, found = end(under_way, fact)
            found += _used(event, fact, at, part, 3)
            found.append(_failure(event, fact, at, part, "failed", fact.failure))
        case Orphaned():
            part, found = end(under_way, fact)
            found += _used(event, fact, at, part, 4, fact.cost_nanos)
            found.append(_failure(event, fact, at, part, "orphaned", "orphaned"))
        case RequestRefused():
            found = [_totals(event, fact, (0, 1, *_NOTHING), (event.sequence, at)), _refusal(event, fact, at)]
        case AnswerReused():
            found = [_totals(event, fact, (1, 0, *_NOTHING), (event.sequence, at))]
        case ThreadConfigured() | BudgetWarned():
            found = [_totals(event, fact, (0, 0, *_NOTHING), (event.sequence, at))]
        case _:  # pragma: no cover
            assert_never(fact)
    return found


# -- what becomes of an event in one table -----------------------------------------------------------------------------

_NOTHING = (0,) * len(_USE)
_ONE = [tuple(int(place == outcome) for place in range(len(_OUTCOMES))) for outcome in range(len(_OUTCOMES))]
_NO_TOKENS = (0,) * len(_TOKENS)
_NO_BOOKS = (None,) * (len(THREAD_TOTALS.lasts) - len(_LAST))


def _used(
    event: RecordedEvent,
    fact: RouteDecided | Ending,
    at: str,
    part: Part,
    outcome: int,
    cost: int = 0,
    *,
    requests: int = 0,
) -> list[Change | Gone]:
    """What an attempt, or its end, comes to: for its thread, its key, its model, its provider and its day."""
    tokens = _NO_TOKENS
    if isinstance(fact, UsageRecorded | Aborted):
        usage = fact.usage
        tokens = (
            amount(usage.input_tokens),
            amount(usage.cached_input_tokens),
            amount(usage.output_tokens),
            amount(usage.reasoning_tokens),
        )
    use, last = (*_ONE[outcome], *tokens, amount(cost)), (event.sequence, at)
    use_and_now = (*use, part.reserved_nanos, part.open_attempts)
    return [
        _totals(event, fact, (requests, 0, *use), last),
        Change(USAGE_BY_KEY, (part.key,), use_and_now, last),
        Change(USAGE_BY_MODEL, (part.model,), use_and_now, last),
        Change(USAGE_BY_PROVIDER, (part.provider,), use_and_now, last),
        Change(USAGE_BY_DAY, (at[:10], part.key, part.model, part.provider), use, last),
    ]


def _totals(event: RecordedEvent, fact: ThreadEvent, sums: tuple[int, ...], last: tuple[Value, ...]) -> Change:
    if event.aggregate == NO_THREAD:  # there the books are those of one request, and no state of anything
        return Change(THREAD_TOTALS, (NO_THREAD,), sums, (*last, *_NO_BOOKS))
    books = (
        number(fact.settled_nanos),
        number(fact.reserved_nanos),
        None if fact.limit_nanos is None else number(fact.limit_nanos),
        len(fact.open),
        *(fact.window, clean(fact.zone), clean(fact.period), share(fact.warn_at), int(fact.warned)),
    )
    return Change(THREAD_TOTALS, (clean(event.aggregate),), sums, (*last, *books))


def _decision(event: RecordedEvent, fact: RouteDecided, at: str) -> Change:
    asked = fact.asked
    lasts = (
        *(at, clean(event.aggregate), key_of(fact)),
        *(clean(fact.request_id), clean(fact.attempt_id), number(fact.attempt)),
        *(asked.operation, clean(asked.model), clean(fact.model), clean(fact.provider)),
        number(fact.reserve_nanos),
        None if fact.max_tokens is None else number(fact.max_tokens),
        *(number(asked.input_bound), number(fact.policy_version), number(fact.log_seq), clean(fact.price_version)),
        None if fact.override is None else clean(fact.override),
        *(as_json(fact.candidates), as_json(fact.left_out)),
    )
    return Change(ROUTE_DECISIONS, (event.sequence,), (), lasts)


def _failure(
    event: RecordedEvent, fact: UsageRecorded | AttemptFailed | Orphaned, at: str, part: Part, kind: str, failure: str
) -> Change:
    lasts = (
        *(at, clean(event.aggregate), part.key),
        *(clean(fact.request_id), clean(fact.attempt_id), number(fact.attempt)),
        *(kind, clean(failure), part.model, part.provider),
        number(fact.status) if isinstance(fact, AttemptFailed) and fact.status is not None else None,
        None if isinstance(fact, Orphaned) else micros(fact.latency_ms),
        0 if isinstance(fact, AttemptFailed) else amount(fact.cost_nanos),
    )
    return Change(FAILURES, (event.sequence,), (), lasts)


def _refusal(event: RecordedEvent, fact: RequestRefused, at: str) -> Change:
    whose = (at, clean(event.aggregate), key_of(fact), clean(fact.request_id), None, None)
    why = ("refused", clean(fact.code), clean(fact.asked.model), None)
    return Change(FAILURES, (event.sequence,), (), (*whose, *why, None, None, 0))


def _latency(part: Part, at: str, measure: str, milliseconds: float) -> Change:
    key = (at[:10], part.model, part.provider, measure, bucket_of(micros(milliseconds)))
    return Change(LATENCY, key, (1,))


def bucket_of(duration: int) -> int:
    """The bound, in microseconds, of the bucket that a duration falls below: at most 1/16 above it, and whole."""
    shift = max(0, duration.bit_length() - 5)
    return ((duration >> shift) + 1) << shift
