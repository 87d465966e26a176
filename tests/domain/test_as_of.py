"""The state at one position, from its events; and what a progress bar says on the way there."""

import io

import pytest
from given import NOON, a_model, a_provider, recorded
from msgspec import structs
from trunkline.cli.progress import REDRAW_EVERY, Progress
from trunkline_actors import money, slices
from trunkline_events.budget import BudgetReserved, BudgetSet, ScopeBooks, Slice
from trunkline_events.circuit import CallFailed, Opened
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.registry import ModelDisabled, ModelRegistered, ProviderRegistered, ProviderRemoved
from trunkline_events.thread import Books, ThreadConfigured
from trunkline_projections.as_of import Builder, State, Thread, shown
from trunkline_projections.budgets import Budget
from trunkline_projections.circuits import CLOSED, Circuit

HISTORY = [
    recorded(ProviderRegistered(provider=a_provider("q")), 1, "q", "provider"),
    recorded(ProviderRegistered(provider=a_provider("p")), 2, "p", "provider"),
    recorded(ModelRegistered(model=a_model("n")), 3, "n", "model"),
    recorded(ModelRegistered(model=a_model("m")), 4, "m", "model"),
    recorded(CallFailed(provider="p", failure="timeout", failures=1), 5, "p", "circuit"),
    recorded(Opened(provider="p", failures=2, opened_at=NOON, retry_at=NOON + 60), 6, "p", "circuit"),
    recorded(ModelDisabled(id="m"), 7, "m", "model"),
    recorded(ProviderRemoved(id="p"), 8, "p", "provider"),
]


def books(thread: str, sequence: int, **more: object) -> RecordedEvent:
    return recorded(ThreadConfigured(request_id="r", **more), sequence, thread)  # type: ignore[arg-type]


def unread(event: RecordedEvent) -> RecordedEvent:
    return structs.replace(event, body=Unknown("model.sung.v9", b"{}", "no such event"))


def unturned(books: Books, _now: float) -> Books:
    return books


def unturned_scope(books: ScopeBooks, _now: float) -> ScopeBooks:
    return books


def state_after(sequence: int, *lasts: RecordedEvent, limit: int | None = None) -> State:
    builder = Builder(sequence, NOON, unturned, unturned_scope)
    for event in HISTORY:
        builder.happened(event)
    for event in lasts:
        if not builder.was_last_of_its_thread(event, limit):
            break
    return builder.state()


def test_nothing_is_so_before_anything_has_happened() -> None:
    assert state_after(0) == State(sequence=0, time=NOON)


def test_what_happened_later_changes_nothing() -> None:
    early = state_after(4)
    assert list(early.models) == ["m", "n"], "in the order of ids"
    assert early.models["m"].status == "enabled"
    assert early.circuits == {"p": CLOSED, "q": CLOSED}
    late = state_after(7)
    assert late.models["m"].status == "disabled"
    assert late.circuits["p"] == Circuit(state="open", failures=2, opened_at=NOON, retry_at=NOON + 60, sequence=6)
    assert state_after(5).circuits["p"] == Circuit(failures=1, sequence=5)


def test_a_breaker_goes_with_its_provider() -> None:
    """Who gets the id next is somebody else, and has not failed yet."""
    state = state_after(8)
    assert list(state.providers) == ["q"]
    assert list(state.circuits) == ["q"]


def test_threads_have_the_books_of_their_last_event() -> None:
    state = state_after(12, books("a", 9, settled_nanos=5), books("b", 12, limit_nanos=7))
    assert state.threads == {
        "a": Thread(books=Books(settled_nanos=5, config_seq=9), sequence=9),
        "b": Thread(books=Books(limit_nanos=7, config_seq=12), sequence=12),
    }
    assert state.more is None


def test_requests_of_no_thread_are_no_thread() -> None:
    assert list(state_after(12, books("-", 9), books("a", 10)).threads) == ["a"]


@pytest.mark.parametrize(
    ("limit", "taken", "more"), [(1, ["a"], "a"), (2, ["a", "b"], "b"), (3, ["a", "b", "c"], None)]
)
def test_threads_are_taken_up_to_a_limit(limit: int, taken: list[str], more: str | None) -> None:
    state = state_after(12, books("a", 9), books("b", 10), books("c", 11), limit=limit)
    assert (list(state.threads), state.more) == (taken, more)


def test_a_page_goes_on_behind_a_thread_that_can_not_be_read() -> None:
    lasts = [books("a", 9), unread(books("b", 10)), books("c", 11), books("d", 12)]
    state = state_after(12, *lasts, limit=2)
    assert (list(state.threads), state.more, state.unknown) == (["a", "c"], "c", [10])


def test_what_this_version_does_not_know_is_named() -> None:
    builder = Builder(4, NOON, unturned, unturned_scope)
    for event in (HISTORY[0], unread(HISTORY[3]), unread(HISTORY[6])):
        builder.happened(event)
    assert builder.state().unknown == [4], "what came later was not asked for"


def test_a_window_that_had_ended_by_then_is_turned() -> None:
    for then, settled in ((NOON, 5), (NOON + 86_400, 0)):
        builder = Builder(9, then, money.turn, slices.turn)
        builder.was_last_of_its_thread(books("a", 9, settled_nanos=5, window="day", period="2026-11-21"))
        assert builder.state().threads["a"].books.settled_nanos == settled


HELD = {"s": Slice(holder="router-1", period="2026-11-21", granted_nanos=7, spent_nanos=2)}


def a_budget(**more: object) -> BudgetReserved:
    given = {"limit_nanos": 10, "window": "day", "zone": "Asia/Tokyo", "period": "2026-11-21", "slices": HELD, **more}
    return BudgetReserved(slice="s", amount_nanos=7, settled_nanos=2, reserved_nanos=5, **given)  # type: ignore[arg-type]


def test_budgets_have_the_books_of_their_last_event_with_the_window_of_that_time() -> None:
    """Midnight in Tokyo is at three in the afternoon."""
    last = recorded(a_budget(), 9, "gateway", "budget")
    for then, settled, reserved in ((NOON, 2, 5), (NOON + 3 * 3600 - 1, 2, 5), (NOON + 3 * 3600, 0, 0)):
        builder = Builder(9, then, money.turn, slices.turn)
        builder.was_last_of_its_budget(last)
        found = builder.state().budgets["gateway"]
        assert (found.books.settled_nanos, found.books.reserved_nanos, found.sequence) == (settled, reserved, 9)
        assert found.books.slices == HELD, "who holds some still does"


def test_a_budget_that_can_not_be_read_is_named() -> None:
    builder = Builder(12, NOON, unturned, unturned_scope)
    builder.was_last_of_its_budget(unread(recorded(a_budget(), 9, "gateway", "budget")))
    builder.was_last_of_its_budget(recorded(BudgetSet(request_id="r", limit_nanos=3), 10, "team:a", "budget"))
    state = builder.state()
    assert state.budgets == {"team:a": Budget(books=ScopeBooks(limit_nanos=3), sequence=10)}
    assert state.unknown == [9]


def test_budgets_are_shown_as_the_commands_show_them() -> None:
    builder = Builder(9, NOON, money.turn, slices.turn)
    builder.was_last_of_its_budget(recorded(a_budget(team="a", warn_at=0.5), 9, "key:k", "budget"))
    assert shown(builder.state())["budgets"] == [
        {
            "scope": "key:k",
            "limit_usd": "0.00000001",
            "window": "day",
            "time_zone": "Asia/Tokyo",
            "warn_at": 0.5,
            "settled_usd": "0.000000002",
            "reserved_usd": "0.000000005",
            "team": "a",
            "holders": ["router-1"],
            "seq": 9,
        }
    ]


def test_the_state_is_shown_as_the_commands_show_it() -> None:
    told = shown(state_after(7, books("a", 7, limit_nanos=500_000_000, settled_nanos=1, warn_at=0.8)))
    assert list(told) == ["models", "providers", "policy", "circuits", "budgets", "threads", "after", "unknown"]
    assert told["circuits"][0] == {
        "provider": "p",
        "state": "open",
        "failures": 2,
        "opened_at": NOON,
        "retry_at": NOON + 60,
    }
    (thread,) = told["threads"]
    assert (thread["limit_usd"], thread["settled_usd"], thread["open"]) == ("0.5", "0.000000001", [])
    assert (thread["window"], thread["time_zone"], thread["warn_at"]) == ("none", "UTC", 0.8)
    assert told["models"][0]["status"] == "disabled"


# -- the progress bar


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bar_tells_how_far_how_fast_and_how_much_longer() -> None:
    progress = Progress(1000, 5000, None, clock := Clock())
    progress.reached(2000)
    clock.now += 2
    bar, figures = progress.line(clock.now, 100)
    assert bar == "██████" + "░" * 18 + " "
    assert figures == " 25%  event 2,000 of 5,000, 500/s, 0:06 left"
    progress.finish()
    assert progress.line(clock.now, 100)[1] == "100%  event 5,000 of 5,000, 2,000/s"


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 200])
@pytest.mark.parametrize(("start", "end", "at"), [(0, 0, 0), (9, 5, 5), (0, 10**9, 1), (0, 3, 3)])
def test_a_bar_fits_its_line(columns: int, start: int, end: int, at: int) -> None:
    progress = Progress(start, end, None, clock := Clock())
    progress.reached(at)
    bar, figures = progress.line(clock.now + 0.001, columns)
    assert len(bar) + len(figures) < columns


def test_a_bar_is_drawn_now_and_then_and_ends_on_a_line_of_its_own() -> None:
    progress = Progress(0, 1000, stream := io.StringIO(), clock := Clock())
    for sequence in range(1, 901):
        progress.reached(sequence)
        clock.now += REDRAW_EVERY / 300
    assert stream.getvalue().count("\r") in (2, 3)
    progress.finish()
    progress.close()
    progress.close()
    assert stream.getvalue().split("\r")[-1].startswith("█" * 24)
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1


def test_a_bar_for_nobody_draws_nothing() -> None:
    progress = Progress(0, 10, None)
    progress.reached(5)
    progress.finish()
    progress.close()
