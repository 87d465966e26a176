"""What tests of the read models share: random histories, and the tables as a naive fold in plain Python has them.

The fold here knows nothing of the code it is held against: it looks at all events for each cell.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from given import NOON, chat
from hypothesis import strategies as st
from trunkline.benchmark import history
from trunkline.projector.store import Store
from trunkline_events.circuit import CallFailed
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.thread import (
    Aborted,
    AttemptFailed,
    BudgetWarned,
    Candidate,
    OpenAttempt,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadConfigured,
    ThreadEvent,
    UsageRecorded,
)
from trunkline_events.usage import Usage
from trunkline_projections.readmodels import TABLES
from trunkline_projections.sql_tables import Batch, Value
from trunkline_projections.sql_view import View

Rows = dict[str, list[dict[str, Value]]]

ENDINGS = {"answered": UsageRecorded, "aborted": Aborted, "failed": AttemptFailed, "orphaned": Orphaned}


# -- the naive fold ----------------------------------------------------------------------------------------------------


def naive(events: Sequence[RecordedEvent]) -> Rows:
    """Every table, row by row in the order of its key, from all events at once."""
    known = [event for event in events if isinstance(event.body, ThreadEvent)]
    attempts = [event for event in known if isinstance(event.body, (RouteDecided, *ENDINGS.values()))]
    return {
        "thread_totals": _grouped(known, ("thread",), lambda event: (event.aggregate,), _thread),
        "usage_by_model": _grouped(attempts, ("model",), lambda event: (of(event).model,), _use),
        "usage_by_provider": _grouped(attempts, ("provider",), lambda event: (of(event).provider,), _use),
        "usage_by_day": _grouped(
            attempts,
            ("day", "model", "provider"),
            lambda event: (_when(event).strftime("%Y-%m-%d"), of(event).model, of(event).provider),
            _use,
        ),
        "route_decisions": [_decision(event) for event in known if isinstance(event.body, RouteDecided)],
        "failures": [row for event in known if (row := _failure(event))],
        "latency": _latency(known),
    }


def of(event: RecordedEvent) -> Any:
    """The body, whatever it is."""
    return event.body


def _when(event: RecordedEvent) -> datetime:
    return datetime.fromtimestamp(event.time, UTC)


def _time(event: RecordedEvent) -> str:
    return _when(event).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _grouped(
    events: Iterable[RecordedEvent],
    names: tuple[str, ...],
    key: Callable[[RecordedEvent], tuple[str, ...]],
    columns: Callable[[list[RecordedEvent]], dict[str, Value]],
) -> list[dict[str, Value]]:
    groups: dict[tuple[str, ...], list[RecordedEvent]] = {}
    for event in events:
        groups.setdefault(key(event), []).append(event)
    return [{**dict(zip(names, which, strict=True)), **columns(groups[which])} for which in sorted(groups)]


def _use(events: list[RecordedEvent]) -> dict[str, Value]:
    metered = [of(event) for event in events if isinstance(event.body, UsageRecorded | Aborted)]
    row: dict[str, Value] = {"attempts": sum(isinstance(event.body, RouteDecided) for event in events)}
    row |= {name: sum(isinstance(event.body, cls) for event in events) for name, cls in ENDINGS.items()}
    row |= {name: sum(getattr(fact.usage, name) for fact in metered) for name in Usage.__struct_fields__}
    row["cost_nanos"] = sum(getattr(event.body, "cost_nanos", 0) for event in events)
    return row | {"last_sequence": events[-1].sequence, "last_time": _time(events[-1])}


def _thread(events: list[RecordedEvent]) -> dict[str, Value]:
    last = of(events[-1])
    none = events[-1].aggregate == "-"
    books = {
        "settled_nanos": last.settled_nanos,
        "reserved_nanos": last.reserved_nanos,
        "limit_nanos": last.limit_nanos,
        "open_attempts": len(last.open),
        "budget_window": last.window,
        "budget_period": last.period,
    }
    return {
        "requests": sum(isinstance(event.body, RouteDecided) and event.body.attempt == 1 for event in events),
        "refused": sum(isinstance(event.body, RequestRefused) for event in events),
        **_use(events),
        **{name: None if none else value for name, value in books.items()},
    }


def _whose(event: RecordedEvent) -> dict[str, Value]:
    fact = of(event)
    return {
        "sequence": event.sequence,
        "time": _time(event),
        "thread": event.aggregate,
        "request_id": fact.request_id,
        "attempt_id": getattr(fact, "attempt_id", None),
        "attempt": getattr(fact, "attempt", None),
    }


def _decision(event: RecordedEvent) -> dict[str, Value]:
    fact = of(event)
    same = ("model", "provider", "reserve_nanos", "max_tokens", "policy_version", "log_seq", "price_version")
    return {
        **_whose(event),
        "operation": fact.asked.operation,
        "asked_model": fact.asked.model,
        "input_bound": fact.asked.input_bound,
        **{name: getattr(fact, name) for name in same},
        "forced_model": fact.override,
        "candidates": msgspec.json.encode(fact.candidates).decode(),
        "left_out": msgspec.json.encode(fact.left_out).decode(),
    }


def _failure(event: RecordedEvent) -> dict[str, Value] | None:
    fact = of(event)
    row = {**_whose(event), "status": None, "latency_us": None, "cost_nanos": 0}
    match fact:
        case UsageRecorded(partial=True):
            row |= {"kind": "cut", "failure": fact.finish, "cost_nanos": fact.cost_nanos}
        case AttemptFailed():
            row |= {"kind": "failed", "failure": fact.failure, "status": fact.status}
        case Orphaned():
            row |= {"kind": "orphaned", "failure": "orphaned", "cost_nanos": fact.cost_nanos}
        case RequestRefused():
            return row | {"kind": "refused", "failure": fact.code, "model": fact.asked.model, "provider": None}
        case _:
            return None
    if not isinstance(fact, Orphaned):
        row["latency_us"] = round(fact.latency_ms * 1000)
    return row | {"model": fact.model, "provider": fact.provider}


def _bounds() -> list[int]:
    """1 to 32, and from there on each doubling in sixteen steps."""
    bounds = list(range(1, 33))
    while bounds[-1] < 2**51:
        bounds += [bounds[-1] + step * bounds[-1] // 16 for step in range(1, 17)]
    return bounds


BOUNDS = _bounds()


def _latency(events: list[RecordedEvent]) -> list[dict[str, Value]]:
    found: list[tuple[str, str, str, str, int]] = []
    for event in events:
        fact = event.body
        if isinstance(fact, UsageRecorded):
            day = _when(event).strftime("%Y-%m-%d")
            for measure, taken in (("latency", fact.latency_ms), ("ttft", fact.ttft_ms)):
                if taken is not None:
                    below = next(bound for bound in BOUNDS if bound > round(taken * 1000))
                    found.append((day, fact.model, fact.provider, measure, below))
    names = ("day", "model", "provider", "measure", "below_us")
    return [{**dict(zip(names, which, strict=True)), "samples": found.count(which)} for which in sorted(set(found))]


# -- the tables, as they are -------------------------------------------------------------------------------------------


def rows_of(view: View) -> Rows:
    """All of a view."""
    with view.snapshot() as held:
        return {
            table.name: [dict(zip(table.column_names, row, strict=True)) for row in held.rows(table)]
            for table in TABLES
        }


def rows_in(batch: Batch) -> Rows:
    """All of a batch."""
    return {
        table.name: [dict(zip(table.column_names, row, strict=True)) for row in batch.rows(table)] for table in TABLES
    }


# -- random histories --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["m", "n/large", "ü"])
COUNTS = st.integers(0, 10**7)
MILLISECONDS = st.integers(0, 10**9).map(lambda micros: micros / 1000)


def _books(draw: st.DrawFn) -> dict[str, Any]:
    open_attempts = draw(st.integers(0, 3))
    return {
        "settled_nanos": draw(COUNTS),
        "reserved_nanos": draw(COUNTS),
        "limit_nanos": draw(st.none() | COUNTS),
        "window": draw(st.sampled_from(["none", "day", "month"])),
        "period": draw(st.sampled_from(["", "2026-11"])),
        "open": {str(n): OpenAttempt(request_id="r", reserve_nanos=1) for n in range(open_attempts)},
        "request_id": draw(st.sampled_from(["r1", "r2"])),
    }


@st.composite
def facts(draw: st.DrawFn) -> Any:
    """Any event of a thread; one says little of the next, which no table may mind. Some are of no thread."""
    books = _books(draw)
    names: dict[str, Any] = {
        "attempt_id": "r-1",
        "attempt": draw(st.integers(1, 3)),
        "model": draw(NAMES),
        "provider": draw(NAMES),
    }
    usage = Usage(
        cached_input_tokens=draw(COUNTS),
        reasoning_tokens=draw(COUNTS),
        input_tokens=draw(COUNTS),
        output_tokens=draw(COUNTS),
    )
    metered: dict[str, Any] = {
        "usage": usage,
        "cost_nanos": draw(COUNTS),
        "price_version": "v",
        "latency_ms": draw(MILLISECONDS),
        "ttft_ms": draw(st.none() | MILLISECONDS),
        "finish": draw(st.sampled_from(["stop", "error"])),
        "partial": draw(st.booleans()),
    }
    asked = chat(draw(NAMES)).asked
    decided: dict[str, Any] = {
        "candidates": [Candidate(model="m", provider="p", score=draw(st.none() | st.just(0.25)), reason="fits")],
        "left_out": draw(st.sampled_from([{}, {"disabled": 2}])),
        "reserve_nanos": draw(COUNTS),
        "max_tokens": draw(st.none() | COUNTS),
        "price_version": "v",
        "asked": asked,
        "tried": [],
        "log_seq": draw(COUNTS),
        "policy_version": 2,
        "override": draw(st.none() | NAMES),
        "preferences": {},
        "stats": {},
        "now": NOON,
        "draw": 0.5,
        "deadline": NOON,
        "reply": "_INBOX.a",
    }
    return draw(
        st.sampled_from(
            [
                ThreadConfigured(**books),
                BudgetWarned(**books, warn_at=0.5),
                RouteDecided(**books, **names, **decided),
                UsageRecorded(**books, **names, **metered),
                Aborted(**books, **names, **metered),
                AttemptFailed(**books, **names, failure="timeout", status=draw(st.none() | st.just(503))),
                Orphaned(**books, **names, cost_nanos=draw(COUNTS), last_seen=NOON),
                RequestRefused(**books, code="budget_exceeded", message="no", asked=asked, needed_nanos=9),
                CallFailed(provider="p", failure="timeout", failures=1),
                Unknown("thread.invented.v9", b"{}", "nobody knows it"),
            ]
        )
    )


@st.composite
def histories(draw: st.DrawFn) -> list[RecordedEvent]:
    """Events as a log would hold them."""
    events = []
    for sequence, body in enumerate(draw(st.lists(facts(), max_size=30)), 1):
        event = RecordedEvent(
            sequence=sequence,
            id=f"e{sequence}",
            category="thread",
            aggregate=draw(st.sampled_from(["-", "a", "b.c"])),
            type="",
            body=body,
            time=NOON + draw(st.integers(0, 3 * 86_400_000_000)) / 1e6,
            actor="test",
            cause="",
        )
        events.append(event)
    return events


async def fill(url: str, count: int, seed: int = 7) -> int:
    """Put a history of about `count` events into the log; the sequence of its last event."""
    connection = await Connection.open(url, name="test")
    try:
        return await history.fill(connection, history.history(count, seed))
    finally:
        await connection.close()


async def folded(url: str) -> Rows:
    """The tables as they follow from the log of this bus, from scratch."""
    connection = await Connection.open(url, name="test")
    try:
        return naive([event async for event in JetStreamLog(connection).read()])
    finally:
        await connection.close()


def seen(store: Store) -> tuple[int, Rows]:
    """The live view: its position and all of it."""
    env = store.live()
    assert env is not None
    with contextlib.closing(store.open(env)) as view:
        return view.position, rows_of(view)


def position_of(store: Store) -> int:
    """Where the live view stands, -1 without one."""
    env = store.live()
    if env is None:
        return -1
    with contextlib.closing(store.open(env)) as view:
        return view.position
