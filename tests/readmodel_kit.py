"""What tests of the read models share: random histories, real ones, and the tables as they are."""

import contextlib
import itertools
from collections.abc import Iterable
from typing import Any

from given import NOON, a_decision, chat
from hypothesis import strategies as st
from msgspec import structs
from readmodel_naive import Rows, naive
from trunkline.benchmark import history
from trunkline.projector.store import Store
from trunkline_events import budget
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
    UsageRecorded,
)
from trunkline_events.usage import Usage
from trunkline_projections.readmodels import TABLES
from trunkline_projections.sql_tables import Batch
from trunkline_projections.sql_view import View

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

KEYS = st.sampled_from(["", "k1", "k\u00fc"])
NAMES = st.sampled_from(["m", "n/large", "ü"])
COUNTS = st.integers(0, 10**7)
MILLISECONDS = st.integers(0, 10**9).map(lambda micros: micros / 1000)


def _limits(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "settled_nanos": draw(COUNTS),
        "reserved_nanos": draw(COUNTS),
        "limit_nanos": draw(st.none() | COUNTS),
        "window": draw(st.sampled_from(["none", "day", "month"])),
        "zone": draw(st.sampled_from(["UTC", "Europe/Berlin"])),
        "period": draw(st.sampled_from(["", "2026-11"])),
        "warn_at": draw(st.none() | st.sampled_from([0.5, 0.8, 1.0])),
        "warned": draw(st.booleans()),
    }


def _books(draw: st.DrawFn) -> dict[str, Any]:
    open_attempts = draw(st.integers(0, 3))
    return {
        **_limits(draw),
        "open": {str(n): OpenAttempt(request_id="r", reserve_nanos=1) for n in range(open_attempts)},
        "request_id": draw(st.sampled_from(["r1", "r2"])),
    }


@st.composite
def facts(draw: st.DrawFn) -> Any:
    """Any event of a thread; one says little of the next, which no table may mind. Some are of something else."""
    books = _books(draw)
    key: dict[str, Any] = {"key": draw(KEYS)}
    names: dict[str, Any] = {
        **key,
        "attempt_id": draw(st.sampled_from(["r-1", "r-2", "s-1"])),
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
                BudgetWarned(**books),
                RouteDecided(**books, **names, **decided),
                UsageRecorded(**books, **names, **metered),
                Aborted(**books, **names, **metered),
                AttemptFailed(**books, **names, failure="timeout", status=draw(st.none() | st.just(503))),
                Orphaned(**books, **names, cost_nanos=draw(COUNTS), last_seen=NOON),
                RequestRefused(**books, **key, code="budget_exceeded", message="no", asked=asked, needed_nanos=9),
                CallFailed(provider="p", failure="timeout", failures=1),
                Unknown("thread.invented.v9", b"{}", "nobody knows it"),
            ]
        )
    )


@st.composite
def budget_facts(draw: st.DrawFn) -> Any:
    """Any event of a budget above the thread."""
    held = budget.Slice(holder="h", period="", granted_nanos=draw(COUNTS))
    books = {
        **_limits(draw),
        "team": draw(st.none() | st.just("research")),
        "slices": {str(n): held for n in range(draw(st.integers(0, 3)))},
    }
    return draw(
        st.sampled_from(
            [
                budget.BudgetSet(**books, request_id="r"),
                budget.BudgetReserved(**books, slice="s", amount_nanos=1),
                budget.BudgetSettled(**books, slice="s", spent_nanos=1, returned_nanos=2),
                budget.BudgetRefused(**books, request_id="r", thread="a", needed_nanos=3),
                budget.ScopeWarned(**books),
            ]
        )
    )


@st.composite
def histories(draw: st.DrawFn) -> list[RecordedEvent]:
    """Events as a log would hold them."""
    events = []
    threads, scopes = st.sampled_from(["-", "a", "b.c"]), st.sampled_from(["gateway", "team:research", "key:k1"])
    lines = st.tuples(st.just("thread"), threads, facts()) | st.tuples(st.just("budget"), scopes, budget_facts())
    for sequence, (category, aggregate, body) in enumerate(draw(st.lists(lines, max_size=30)), 1):
        event = RecordedEvent(
            sequence=sequence,
            id=f"e{sequence}",
            category=category,
            aggregate=aggregate,
            type="",
            body=body,
            time=NOON + draw(st.integers(0, 3 * 86_400_000_000)) / 1e6,
            actor="test",
            cause="",
        )
        events.append(event)
    return events


async def fill(url: str, count: int, seed: int = 7) -> int:
    """Put a history of about `count` events into the log, most of them with an API key; its last sequence."""

    def keyed(number: int, line: history.Line) -> history.Line:
        body: Any = line.body
        return structs.replace(line, body=structs.replace(body, key=("", "k1", "k2")[number // 2 % 3]))

    return await append(url, itertools.starmap(keyed, enumerate(history.history(count, seed))))


BEGUN = [
    history.Line("budget", "key:k1", "r", NOON, budget.BudgetSet(limit_nanos=9, warn_at=0.8, request_id="r")),
    history.Line("thread", "t", "r", NOON, structs.replace(a_decision("r-1", reserve=5), key="k1")),
    history.Line("thread", "-", "r", NOON, structs.replace(a_decision("r-2", reserve=7), key="k1")),
]
"""Two attempts under way."""
ENDED = [
    history.Line(
        "thread",
        "t",
        "r",
        NOON + 1,
        Orphaned(
            request_id="r", attempt_id="r-1", attempt=1, model="m", provider="p", key="k1", cost_nanos=5, last_seen=NOON
        ),
    ),
    history.Line("budget", "key:k1", "r", NOON + 1, budget.ScopeWarned(limit_nanos=9, settled_nanos=8, warned=True)),
]
"""One of them ended, and a budget nearly spent."""


async def append(url: str, lines: Iterable[history.Line]) -> int:
    """Put these into the log; its last sequence."""
    connection = await Connection.open(url, name="test")
    try:
        return await history.fill(connection, lines)
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
