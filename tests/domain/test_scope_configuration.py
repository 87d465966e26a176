"""Setting a budget above the thread: limit, window, zone, warning and team, while slices of it are out."""

from typing import Any

import pytest
from given import DAY, NOON
from trunkline_actors.money import Budget
from trunkline_actors.slices import OVER, configure, turn
from trunkline_events.budget import BudgetSet, ScopeBooks, Slice
from trunkline_events.refusal import Refused
from trunkline_projections.budgets import books_of

TODAY = "2026-11-21"


def a_slice(granted: int, spent: int = 0, period: str = "") -> Slice:
    return Slice(holder="p", period=period, granted_nanos=granted, spent_nanos=spent)


def spent_and_leased(window: Any = "none", period: str = "", zone: str = "UTC") -> ScopeBooks:
    """Of a limit of 1,000, 30 are settled and 70 are out."""
    return ScopeBooks(
        limit_nanos=1000,
        window=window,
        zone=zone,
        period=period,
        settled_nanos=30,
        reserved_nanos=70,
        slices={"a": a_slice(100, 30, period)},
    )


def changed(before: ScopeBooks, budget: Budget, now: float = NOON) -> BudgetSet:
    found = configure(before, "r", budget, "t", "why", now)
    assert isinstance(found, BudgetSet), found
    return found


def test_a_budget_is_set_as_a_whole() -> None:
    found = changed(ScopeBooks(), Budget(limit_usd="1", window="month", time_zone="Europe/Berlin", warn_at=0.5))
    assert (found.limit_nanos, found.window, found.zone, found.warn_at) == (10**9, "month", "Europe/Berlin", 0.5)
    assert (found.period, found.team, found.request_id, found.reason) == ("2026-11", "t", "r", "why")
    without = changed(books_of(found), Budget(window="month", time_zone="Europe/Berlin"))
    assert (without.limit_nanos, without.warn_at) == (None, None)


@pytest.mark.parametrize(("limit", "fits"), [("0.0000001", True), ("0.000000099", False)])
def test_a_limit_below_what_is_spent_and_leased_is_refused(limit: str, *, fits: bool) -> None:
    found = configure(spent_and_leased(), "r", Budget(limit_usd=limit), None, None, NOON)
    if fits:
        assert isinstance(found, BudgetSet)
        assert found.limit_nanos == found.settled_nanos + found.reserved_nanos
    else:
        assert isinstance(found, Refused)
        assert (found.code, found.param) == ("conflict", "budget.limit_usd")


@pytest.mark.parametrize(
    ("budget", "param"),
    [
        (Budget(limit_usd="much"), "budget.limit_usd"),
        (Budget(time_zone="Mars/Olympus", window="day"), "budget.time_zone"),
        (Budget(warn_at=1.5), "budget.warn_at"),
    ],
)
def test_what_makes_no_sense_is_refused(budget: Budget, param: str) -> None:
    found = configure(spent_and_leased(), "r", budget, None, None, NOON)
    assert isinstance(found, Refused)
    assert (found.code, found.param) == ("invalid_request", param)


def test_with_a_new_limit_the_window_goes_on_and_may_warn_again() -> None:
    before = ScopeBooks(window="day", period=TODAY, settled_nanos=30, warned=True, limit_nanos=40)
    found = changed(before, Budget(limit_usd="1", window="day"))
    assert (found.settled_nanos, found.period, found.warned) == (30, TODAY, False)


def test_setting_a_budget_turns_its_window() -> None:
    found = changed(spent_and_leased("day", "2026-11-20"), Budget(limit_usd="0.00000001", window="day"))
    assert (found.period, found.settled_nanos, found.reserved_nanos) == (TODAY, 0, 0)


@pytest.mark.parametrize(
    ("before", "budget", "period"),
    [
        (spent_and_leased(), Budget(limit_usd="1", window="day"), TODAY),
        (spent_and_leased("day", TODAY), Budget(limit_usd="1"), ""),
        (spent_and_leased("day", TODAY), Budget(limit_usd="1", window="month"), "2026-11"),
        (spent_and_leased("day", TODAY), Budget(limit_usd="1", window="day", time_zone="Asia/Kathmandu"), TODAY),
    ],
)
def test_another_window_or_zone_begins_with_nothing_settled_and_what_is_leased_stays_reserved(
    before: ScopeBooks, budget: Budget, period: str
) -> None:
    """Its holders go on to spend it."""
    found = changed(before, budget)
    assert (found.period, found.settled_nanos, found.reserved_nanos) == (period, 0, 70)
    assert found.slices == {"a": a_slice(100, 30, period)}


@pytest.mark.parametrize(("zone", "now"), [("UTC", NOON), ("America/New_York", NOON - DAY / 2 + 1)])
def test_a_window_that_was_over_before_stays_over_also_where_a_day_of_its_name_begins(zone: str, now: float) -> None:
    budget = Budget(limit_usd="0", window="day", time_zone=zone)
    before = spent_and_leased("day", "2026-11-20", "Asia/Kathmandu")
    found = changed(before, budget, now)
    assert (found.settled_nanos, found.reserved_nanos) == (0, 0)
    assert found.slices == {"a": a_slice(100, 30, OVER)}


def test_a_day_that_was_leased_for_where_it_had_come_already_does_not_come_back_where_it_comes_later() -> None:
    """Else a limit that is lowered in between is exceeded when the day turns."""
    auckland = spent_and_leased("day", "2026-11-22", "Pacific/Auckland")
    utc = changed(auckland, Budget(limit_usd="1", window="day"))
    returned = ScopeBooks(**{name: getattr(books_of(utc), name) for name in ScopeBooks.__struct_fields__})
    tomorrow = turn(returned, NOON + DAY)
    assert (tomorrow.period, tomorrow.settled_nanos, tomorrow.reserved_nanos) == ("2026-11-22", 0, 0)
