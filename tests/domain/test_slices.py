"""The ledger of a budget above the thread: slices are leased, reported on, given back, frozen and closed."""

from typing import Any

import pytest
from given import DAY, NOON
from trunkline_actors.money import Exceeded, Waiting
from trunkline_actors.slices import AHEAD, Lease, Settle, account, freeze, lease, settle, turn, warn
from trunkline_events.budget import BudgetRefused, BudgetReserved, BudgetSettled, ScopeBooks, Slice
from trunkline_events.refusal import Refused
from trunkline_projections.budgets import books_of, evolve

TODAY = "2026-11-21"


def a_slice(granted: int = 0, spent: int = 0, holder: str = "p", period: str = "", *, frozen: bool = False) -> Slice:
    return Slice(holder=holder, period=period, granted_nanos=granted, spent_nanos=spent, frozen=frozen)


def books(limit: int | None = 1000, settled: int = 0, **slices: Slice) -> ScopeBooks:
    """A budget without a window; what is reserved follows from its slices."""
    held = sum(max(0, one.granted_nanos - one.spent_nanos) for one in slices.values())
    return ScopeBooks(limit_nanos=limit, settled_nanos=settled, reserved_nanos=held, slices=slices)


def daily(period: str = TODAY, settled: int = 0, limit: int = 1000, **slices: Slice) -> ScopeBooks:
    held = sum(one.granted_nanos - one.spent_nanos for one in slices.values() if one.period == period)
    return ScopeBooks(
        limit_nanos=limit, window="day", period=period, settled_nanos=settled, reserved_nanos=held, slices=slices
    )


def an_ask(needed: int = 10, wanted: int | None = None, name: str = "a", **more: Any) -> Lease:
    fields: dict[str, Any] = {
        "slice": name,
        "holder": "p",
        "request_id": "r",
        "thread": "t",
        "spent_nanos": 0,
        "free_nanos": 0,
        "needed_nanos": needed,
        "wanted_nanos": needed if wanted is None else wanted,
        "floor_nanos": needed,
        "ahead": 1,
    }
    return Lease(**(fields | more))


def leased(before: ScopeBooks, ask: Lease, now: float = NOON) -> BudgetReserved:
    found = lease("gateway", before, ask, now)
    assert isinstance(found, BudgetReserved), found
    assert found.settled_nanos + found.reserved_nanos <= (found.limit_nanos or 0)
    return found


def settled(before: ScopeBooks, command: Settle, *, keeper: bool = False) -> BudgetSettled:
    found = settle(before, command, NOON, keeper=keeper)
    assert found is not None
    return found


# -- leasing


def test_a_slice_that_nobody_heard_of_is_made_by_leasing_it() -> None:
    found = leased(books(), an_ask(10))
    assert found.slices == {"a": a_slice(10)}
    assert (found.slice, found.amount_nanos, found.spent_nanos) == ("a", 10, 0)
    assert (found.settled_nanos, found.reserved_nanos) == (0, 10)


def test_more_is_leased_for_the_slice_one_has_and_what_was_spent_is_reported_on_this_occasion() -> None:
    found = leased(books(settled=5, a=a_slice(20, 5)), an_ask(10, spent_nanos=17))
    assert found.slices == {"a": a_slice(30, 17)}
    assert (found.amount_nanos, found.spent_nanos) == (10, 12)
    assert (found.settled_nanos, found.reserved_nanos) == (17, 13)


def test_what_is_free_in_the_slice_already_is_not_leased_again() -> None:
    before = books(a=a_slice(8), b=a_slice(990, holder="q"))
    assert leased(before, an_ask(10, free_nanos=8)).amount_nanos == 10 - 8


def test_what_was_reported_before_is_not_reported_again() -> None:
    found = leased(books(settled=5, a=a_slice(20, 5)), an_ask(10, spent_nanos=3))
    assert (found.spent_nanos, found.settled_nanos) == (0, 5)


@pytest.mark.parametrize(
    ("others", "ahead", "amount"),
    [
        ({}, AHEAD, 320),
        ({}, 100, 500),
        ({"b": a_slice(100, holder="q")}, AHEAD, 225),
        ({"b": a_slice(100, holder="q"), "c": a_slice(holder="q"), "d": a_slice(holder="z")}, AHEAD, 150),
        ({"b": a_slice(100, holder="p")}, AHEAD, 320),
        ({"b": a_slice(985, holder="q")}, AHEAD, 10),
    ],
)
def test_a_slice_is_for_many_requests_but_leaves_half_to_be_shared_with_whoever_else_holds_some(
    others: dict[str, Slice], ahead: int, amount: int
) -> None:
    assert leased(books(1000, 0, **others), an_ask(10, ahead=ahead)).amount_nanos == amount


def test_money_that_is_there_to_the_last_nano_dollar_is_leased() -> None:
    assert leased(books(settled=940, b=a_slice(50)), an_ask(10)).amount_nanos == 10
    assert isinstance(lease("gateway", books(settled=941, b=a_slice(50)), an_ask(10), NOON), Refused)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(books(a=a_slice(20, frozen=True)), id="frozen"),
        pytest.param(books(a=a_slice(20, period="2026-11")), id="of another period"),
        pytest.param(books(None, a=a_slice(20)), id="without a limit"),
    ],
)
def test_a_slice_that_can_not_be_used_any_more_is_no_refusal(before: ScopeBooks) -> None:
    assert lease("gateway", before, an_ask(), NOON) is None
    assert lease("gateway", before, an_ask(last_word=True), NOON) is None


def test_a_slice_that_was_closed_is_not_opened_again_and_what_it_cost_not_settled_twice() -> None:
    assert lease("gateway", books(settled=7), an_ask(10, spent_nanos=7), NOON) is None
    unaware = an_ask(10, granted_nanos=20)
    assert lease("gateway", books(settled=7), unaware, NOON) is None, "a keeper closed it, and its holder lives on"


def test_a_slice_of_yesterday_gets_nothing_today() -> None:
    before = daily("2026-11-20", a=a_slice(20, period="2026-11-20"))
    assert lease("gateway", before, an_ask(), NOON) is None
    assert leased(before, an_ask(name="b")).slices["b"].period == TODAY


# -- refusing


def test_the_last_word_is_not_said_before_others_were_asked_to_give_back() -> None:
    found = lease("gateway", books(settled=995), an_ask(10), NOON)
    assert isinstance(found, Exceeded)
    found = lease("gateway", books(b=a_slice(995, holder="q")), an_ask(10), NOON)
    assert isinstance(found, Waiting)
    assert (found.scope, found.needed_nanos, found.retryable) == ("gateway", 10, True)


def test_who_would_like_more_than_is_there_has_others_asked_first_and_then_takes_what_there_is() -> None:
    before = books(b=a_slice(970, holder="q"))
    assert isinstance(lease("gateway", before, an_ask(10, 50), NOON), Waiting)
    assert leased(before, an_ask(10, 50, last_word=True)).amount_nanos == 30


def test_what_only_other_slices_keep_out_waits_also_at_the_last_word() -> None:
    found = lease("gateway", books(b=a_slice(995, holder="q")), an_ask(10, last_word=True), NOON)
    assert isinstance(found, Waiting)


def test_what_is_not_there_even_if_all_came_back_is_refused_as_an_event() -> None:
    found = lease("gateway", books(settled=991, b=a_slice(5, holder="q")), an_ask(10, last_word=True), NOON)
    assert isinstance(found, BudgetRefused)
    assert (found.request_id, found.thread, found.needed_nanos) == ("r", "t", 10)
    assert (found.settled_nanos, found.reserved_nanos) == (991, 5)


def test_a_refusal_makes_no_slice_and_takes_none_away() -> None:
    empty = a_slice(holder="q")
    found = lease("gateway", books(settled=995, b=empty), an_ask(10, last_word=True), NOON)
    assert isinstance(found, BudgetRefused)
    assert found.slices == {"b": empty}, "whoever closes it says so; it must not vanish without a word"


def test_a_refusal_for_good_counts_what_the_asker_itself_has_spent_and_not_reported() -> None:
    ask = an_ask(10, spent_nanos=995, last_word=True)
    found = lease("gateway", books(a=a_slice(1000)), ask, NOON)
    assert isinstance(found, BudgetRefused)
    assert found.slices["a"].spent_nanos == found.settled_nanos == 995


def test_where_nothing_is_left_to_lease_that_is_said_so_that_nobody_asks_again_and_again() -> None:
    before = books(a=a_slice(300), b=a_slice(700, holder="q"))
    found = lease("gateway", before, an_ask(261, 1005, free_nanos=300, last_word=True), NOON)
    assert isinstance(found, Waiting)


def test_who_can_do_with_less_is_not_refused_for_good_while_less_is_there() -> None:
    ask = an_ask(10, floor_nanos=5, last_word=True)
    assert isinstance(lease("gateway", books(settled=995), ask, NOON), Exceeded)
    assert isinstance(lease("gateway", books(settled=996), ask, NOON), BudgetRefused)


def test_who_can_do_with_less_gets_what_there_is_where_only_its_own_report_shows_how_little_that_is() -> None:
    """What it takes at the least follows from what is settled, which nobody knew before."""
    found = leased(books(a=a_slice(996)), an_ask(10, floor_nanos=4, spent_nanos=995, last_word=True))
    assert (found.spent_nanos, found.amount_nanos, found.settled_nanos) == (995, 4, 995)
    none = leased(books(a=a_slice(1000)), an_ask(10, floor_nanos=4, spent_nanos=995, last_word=True))
    assert (none.spent_nanos, none.amount_nanos, none.settled_nanos) == (995, 0, 995)


# -- reporting


def test_what_was_spent_is_settled_and_what_is_not_kept_is_given_back() -> None:
    found = settled(books(settled=5, a=a_slice(100, 5)), Settle(slice="a", spent_nanos=30, keep_nanos=20))
    assert found.slices == {"a": a_slice(50, 30)}
    assert (found.spent_nanos, found.returned_nanos, found.closed) == (25, 50, False)
    assert (found.settled_nanos, found.reserved_nanos) == (30, 20)


def test_a_report_told_twice_counts_once() -> None:
    command = Settle(slice="a", spent_nanos=30, keep_nanos=20)
    found = settled(books(a=a_slice(100)), command)
    assert settle(books_of(found), command, NOON) is None


def test_no_report_grants_anything() -> None:
    found = settled(books(a=a_slice(100)), Settle(slice="a", spent_nanos=30, keep_nanos=90))
    assert found.slices == {"a": a_slice(100, 30)}
    assert found.returned_nanos == 0


def test_a_report_of_less_than_was_reported_takes_nothing_back() -> None:
    command = Settle(slice="a", spent_nanos=10, keep_nanos=70)
    assert settle(books(settled=30, a=a_slice(100, 30)), command, NOON) is None


def test_a_closed_slice_is_gone_and_all_of_it_settled_or_given_back() -> None:
    command = Settle(slice="a", spent_nanos=30, keep_nanos=0, closed=True)
    found = settled(books(a=a_slice(100), b=a_slice(5)), command)
    assert found.slices == {"b": a_slice(5)}
    assert (found.spent_nanos, found.returned_nanos, found.reserved_nanos) == (30, 70, 5)
    assert settle(books_of(found), command, NOON) is None
    kept = settled(books(a=a_slice(100)), Settle(slice="a", spent_nanos=30, keep_nanos=70, closed=True))
    assert (kept.slices, kept.returned_nanos) == ({}, 70)
    untouched = settled(books(a=a_slice()), Settle(slice="a", spent_nanos=0, keep_nanos=0, closed=True))
    assert (untouched.slices, untouched.spent_nanos, untouched.returned_nanos) == ({}, 0, 0)


def test_a_slice_of_an_older_period_is_settled_in_its_own_and_burdens_today_with_nothing() -> None:
    before = daily("2026-11-20", settled=40, a=a_slice(100, 40, period="2026-11-20"))
    found = settled(before, Settle(slice="a", spent_nanos=60, keep_nanos=10))
    assert (found.period, found.settled_nanos, found.reserved_nanos) == (TODAY, 0, 0)
    assert (found.spent_nanos, found.returned_nanos) == (20, 30)
    assert found.slices == {"a": a_slice(70, 60, period="2026-11-20")}


def test_what_cost_more_than_was_granted_is_settled_in_full_and_the_next_lease_grants_what_it_says() -> None:
    """A provider that does not honour `max_tokens`."""
    found = settled(books(a=a_slice(20)), Settle(slice="a", spent_nanos=50, keep_nanos=0))
    assert (found.settled_nanos, found.reserved_nanos, found.returned_nanos) == (50, 0, 0)
    again = leased(books_of(found), an_ask(10, spent_nanos=50))
    assert (again.amount_nanos, again.reserved_nanos, again.settled_nanos) == (10, 10, 50)


@pytest.mark.parametrize("wanted", [5, 20])
def test_where_more_was_spent_than_there_was_nothing_is_granted_and_nothing_taken_back(wanted: int) -> None:
    before = books(settled=990, a=a_slice(30), b=a_slice(20, holder="q"))
    ask = an_ask(wanted, free_nanos=30, last_word=True)
    assert isinstance(lease("gateway", before, ask, NOON), Waiting | Exceeded)


# -- freezing


def test_a_frozen_slice_is_its_keepers_alone() -> None:
    frozen = freeze(books(settled=5, a=a_slice(100, 5)), "a", NOON)
    assert frozen is not None
    assert frozen.slices == {"a": a_slice(100, 5, frozen=True)}
    assert (frozen.spent_nanos, frozen.returned_nanos, frozen.closed) == (0, 0, False)
    assert (frozen.settled_nanos, frozen.reserved_nanos) == (5, 95)
    command = Settle(slice="a", spent_nanos=30, keep_nanos=20)
    assert settle(books_of(frozen), command, NOON) is None
    found = settled(books_of(frozen), command, keeper=True)
    assert found.slices == {"a": a_slice(50, 30, frozen=True)}


def test_what_is_not_frozen_is_not_the_keepers() -> None:
    assert settle(books(a=a_slice(100)), Settle(slice="a", spent_nanos=1, keep_nanos=0), NOON, keeper=True) is None


def test_a_slice_is_frozen_once_and_none_that_is_gone() -> None:
    assert freeze(books(a=a_slice(100, frozen=True)), "a", NOON) is None
    assert freeze(books(), "a", NOON) is None
    assert settle(books(), Settle(slice="a", spent_nanos=1, keep_nanos=0), NOON, keeper=True) is None


# -- windows


def test_a_new_period_begins_with_nothing_spent_or_leased() -> None:
    before = daily("2026-11-20", settled=40, a=a_slice(100, 40, period="2026-11-20"))
    after = turn(before, NOON)
    assert (after.period, after.settled_nanos, after.reserved_nanos) == (TODAY, 0, 0)
    assert after.slices == before.slices
    assert leased(before, an_ask(1000, name="b")).amount_nanos == 1000


def test_a_process_whose_clock_is_slow_turns_no_period_back() -> None:
    before = daily(settled=40, a=a_slice(100, 40, period=TODAY))
    assert turn(before, NOON - DAY) == before


# -- warning and showing


@pytest.mark.parametrize(
    ("spent", "limit", "warned", "told"), [(80, 100, False, True), (79, 100, False, False), (80, 100, True, False)]
)
def test_a_warning_is_told_once_when_its_share_is_spent(spent: int, limit: int, *, warned: bool, told: bool) -> None:
    event = warn(ScopeBooks(settled_nanos=spent, limit_nanos=limit, warn_at=0.8, warned=warned))
    assert (event is not None) is told
    if event is not None:
        assert (event.warned, event.settled_nanos) == (True, spent)
        assert warn(books_of(event)) is None
        assert turn(ScopeBooks(window="day", period="2026-11-20", warned=True), NOON).warned is False


def test_a_caller_is_told_of_the_budget_as_it_stands() -> None:
    found = account("gateway", books(limit=None, settled=3, a=a_slice(5)))
    assert (found.scope, found.limit_nanos, found.settled_nanos, found.reserved_nanos) == ("gateway", 0, 3, 5)
    assert (found.window, found.zone) == ("none", "UTC")


def test_all_budgets_are_known_as_their_last_events_carry_them() -> None:
    first = leased(books(), an_ask(10))
    state = evolve(evolve({}, first, 1, "gateway"), leased(books(), an_ask(20)), 2, "team:x")
    assert state["gateway"].books == books_of(first)
    assert (state["gateway"].sequence, state["team:x"].sequence) == (1, 2)
