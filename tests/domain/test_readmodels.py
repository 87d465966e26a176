"""The read models: what each event does to the tables, held against a naive fold; and in SQLite, to the byte."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import Tracking
from given import NOON, a_decision, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from readmodel_kit import histories, rows_in, rows_of
from readmodel_naive import BOUNDS, naive
from trunkline.projector.rebuild import difference
from trunkline.projector.store import SQLiteStore
from trunkline_events.budget import BudgetRefused, BudgetReserved, BudgetSet, Slice
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.registry import ModelEnabled
from trunkline_events.thread import AttemptFailed
from trunkline_projections import readmodels
from trunkline_projections.readmodels import FAILURES, TABLES, USAGE_BY_MODEL, bucket_of, changes
from trunkline_projections.sql_tables import Batch, Value
from trunkline_projections.sql_values import time_of
from trunkline_projections.sql_view import SOURCE, Overtaken, SQLiteView, View
from trunkline_projections.under_way import OPEN_ATTEMPTS, UnderWay, remembered


def batch_of(events: Iterable[RecordedEvent], under_way: UnderWay | None = None) -> Batch:
    batch, before = Batch(TABLES), {} if under_way is None else under_way
    for event in events:
        batch.add(changes(event, before))
    return batch


@contextmanager
def a_view() -> Iterator[View]:
    """An empty view, in a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder))
        view = store.open(store.beside(), create=True)
        try:
            yield view
        finally:
            view.close()


def filled(view: View, events: list[RecordedEvent], cuts: Iterable[int]) -> None:
    """Apply what is new of a history, in batches that end after these events, each by a projector just started."""
    before = view.position
    for after in sorted({cut for cut in cuts if 0 < cut < len(events)} | {len(events)}):
        if after > before:
            with view.snapshot() as held:
                under_way = remembered(held.rows(OPEN_ATTEMPTS))
            view.apply(batch_of(events[before:after], under_way), Tracking(SOURCE, after), before)
            before = after


def failed(attempt_id: str) -> AttemptFailed:
    return AttemptFailed(
        request_id="r", attempt_id=attempt_id, attempt=1, model="m", provider="p", failure="timeout", latency_ms=1.0
    )


def now(view: View) -> set[tuple[Value, Value]]:
    """What all that has a row for one key, one model and one provider says is reserved, and by how many attempts."""
    tables = rows_of(view)
    rows = [row for name in ("key", "model", "provider") for row in tables[f"usage_by_{name}"]]
    return {(row["reserved_nanos"], row["open_attempts"]) for row in rows}


@settings(deadline=None, max_examples=40)
@given(histories())
def test_the_tables_are_what_a_naive_fold_says(events: list[RecordedEvent]) -> None:
    assert rows_in(batch_of(events)) == naive(events)


@settings(deadline=None, max_examples=15)
@given(histories(), st.lists(st.integers(1, 30)), st.lists(st.integers(1, 30)))
def test_a_rebuilt_view_is_the_live_one_however_events_are_grouped(
    events: list[RecordedEvent], some: list[int], others: list[int]
) -> None:
    with a_view() as live, a_view() as rebuilt:
        filled(live, events, some)
        filled(rebuilt, events, others)
        assert rows_of(live) == rows_of(rebuilt) == naive(events)
        with live.snapshot() as one, rebuilt.snapshot() as other:
            assert one.position == other.position == len(events)
            assert all(difference(table, one.rows(table), other.rows(table)).same for table in TABLES)


def test_an_attempt_is_under_way_from_its_decision_to_its_ending() -> None:
    begun = [recorded(a_decision(f"r-{n}", reserve=n), n) for n in (1, 2, 3)]
    ended = [recorded(failed("r-1"), 4), recorded(failed("r-3"), 5), recorded(failed("r-9"), 6)]
    with a_view() as view:
        filled(view, begun, [2])
        assert now(view) == {(6, 3)}
        assert [row["attempt_id"] for row in rows_of(view)["open_attempts"]] == ["r-1", "r-2", "r-3"]
        filled(view, [*begun, *ended], [3])
        assert now(view) == {(2, 1)}
        (left,) = rows_of(view)["open_attempts"]
        assert (left["attempt_id"], left["reserve_nanos"], left["sequence"], left["key"]) == ("r-2", 2, 2, "-")


def test_an_ending_counts_for_the_key_its_attempt_was_decided_with() -> None:
    """A process of an older version, beside newer ones, ends what they decided: it writes no key."""
    decided = structs.replace(a_decision(), key="k1")
    rows = rows_in(batch_of([recorded(decided, 1), recorded(failed("r-1"), 2)]))
    (use,) = rows["usage_by_key"]
    assert (use["key"], use["attempts"], use["failed"], use["reserved_nanos"]) == ("k1", 1, 1, 0)
    assert [row["key"] for row in (*rows["failures"], *rows["usage_by_day"], *rows["route_decisions"])] == ["k1"] * 3


def test_an_attempt_is_one_however_often_it_was_decided_and_ended() -> None:
    twice = [recorded(a_decision(reserve=reserve), sequence) for sequence, reserve in ((1, 5), (2, 7))]
    assert rows_in(batch_of(twice))["usage_by_model"][0]["reserved_nanos"] == 5
    (use,) = rows_in(batch_of([*twice, recorded(failed("r-1"), 3), recorded(failed("r-1"), 4)]))["usage_by_model"]
    assert (use["attempts"], use["failed"], use["open_attempts"], use["reserved_nanos"]) == (2, 2, 0, 0)


def test_a_budget_is_a_row_that_says_how_it_stands() -> None:
    held = {"host/1": Slice(holder="host", period="2026-11", granted_nanos=70, spent_nanos=10)}
    books: dict[str, Any] = {"limit_nanos": 100, "window": "month", "period": "2026-11", "warn_at": 0.8, "team": "red"}
    events = [
        recorded(body, sequence, "key:k1", "budget")
        for sequence, body in enumerate(
            [
                BudgetSet(**books, request_id="r"),
                BudgetReserved(**books, slice="host/1", amount_nanos=70, reserved_nanos=60, slices=held),
                BudgetRefused(
                    **books,
                    request_id="r2",
                    thread="t",
                    needed_nanos=900,
                    settled_nanos=10,
                    reserved_nanos=60,
                    slices=held,
                ),
            ],
            1,
        )
    ]
    assert rows_in(batch_of(events))["budgets"] == [
        {
            "scope": "key:k1",
            "refused": 1,
            "last_sequence": 3,
            "last_time": time_of(NOON),
            "settled_nanos": 10,
            "reserved_nanos": 60,
            "limit_nanos": 100,
            "budget_window": "month",
            "budget_zone": "UTC",
            "budget_period": "2026-11",
            "warn_at": "0.8",
            "warned": 0,
            "team": "red",
            "slices": 1,
        }
    ]


@given(st.integers(0, 2**50))
def test_a_duration_falls_into_the_smallest_bucket_above_it(micros: int) -> None:
    bound = bucket_of(micros)
    assert bound == next(bound for bound in BOUNDS if bound > micros)
    assert bound <= micros * 17 / 16 + 1


def test_events_that_are_no_threads_or_unknown_change_nothing() -> None:
    assert changes(recorded(ModelEnabled(id="m"), category="model"), {}) == []
    unknown = structs.replace(recorded(a_decision()), body=Unknown("thread.new.v2", b"", ""))
    assert changes(unknown, {}) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (NOON, "2026-11-21T12:00:00.000000Z"),
        (NOON + 0.25, "2026-11-21T12:00:00.250000Z"),
        (-5.0, "1970-01-01T00:00:00.000000Z"),
        (1e300, "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_every_time_has_a_place_in_the_calendar(seconds: float, text: str) -> None:
    assert time_of(seconds) == text


def test_what_no_database_holds_is_brought_to_what_it_does() -> None:
    garbage = structs.replace(a_decision(reserve=10**30, settled_nanos=-(10**30)), model="a\x00b")
    with a_view() as view:
        filled(view, [recorded(garbage)], [])
        (row,) = rows_of(view)["route_decisions"]
        assert (row["model"], row["reserve_nanos"]) == ("a\ufffdb", 2**63 - 1)
        assert rows_of(view)["thread_totals"][0]["settled_nanos"] == -(2**63 - 1)


def test_a_batch_is_applied_only_where_the_view_was_left() -> None:
    events = [recorded(a_decision(), sequence) for sequence in (1, 2, 3)]
    with a_view() as view:
        view.apply(batch_of(events[:2]), Tracking(SOURCE, 2), 0)
        with pytest.raises(Overtaken, match="not at sequence 1"):
            view.apply(batch_of(events[1:]), Tracking(SOURCE, 3), 1)
        assert view.position == 2
        assert rows_of(view) == naive(events[:2])


def test_rows_and_position_are_committed_together_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_view: View, _cursor: object, _tracking: Tracking) -> None:
        raise OSError("no space left on the disk")

    with a_view() as view:
        monkeypatch.setattr(SQLiteView, "record_position", full)
        with pytest.raises(OSError, match="no space"):
            view.apply(batch_of([recorded(a_decision())]), Tracking(SOURCE, 1), 0)
        assert view.position == 0
        assert rows_of(view) == naive([])


def test_a_difference_counts_what_is_missing_extra_and_not_the_same() -> None:
    def rows(*models: tuple[str, int]) -> Iterator[tuple[str, int]]:
        return iter(models)

    found = difference(USAGE_BY_MODEL, rows(("a", 1), ("b", 2), ("d", 4)), rows(("b", 3), ("c", 1), ("d", 4)))
    assert (found.rows, found.missing, found.extra, found.different, found.same) == (3, 1, 1, 1, False)
    assert difference(FAILURES, rows(), rows()).same
    assert difference(USAGE_BY_MODEL, rows(("a", 1)), rows()).missing == 1


def test_the_queries_of_the_documentation_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "projections.md").read_text(encoding="utf-8")
    queries = re.findall(r"```sql\n(.*?);\n```", page, re.DOTALL)
    assert len(queries) == 7
    with a_view() as view:
        filled(view, [recorded(a_decision())], [])
        with view.reading() as cursor:
            assert [len(list(view.stream(cursor, query))) for query in queries] == [1, 1, 1, 0, 0, 0, 1]


def test_a_schema_changes_with_what_the_tables_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    before = readmodels.schema()
    monkeypatch.setattr(readmodels, "VERSION", readmodels.VERSION + 1)
    assert readmodels.schema() != before
