"""Setting a thread's budget: what it may be, and what becomes of what was spent before."""

import pytest
from given import NOON
from trunkline_actors.money import Budget, fields
from trunkline_actors.thread_settings import Change, Settings, configure
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, OpenAttempt, ThreadConfigured, Window
from trunkline_events.usage import Usage
from trunkline_projections.threads import books_of

OPEN = Books(
    settled_nanos=1, reserved_nanos=15, limit_nanos=20, open={"r-1": OpenAttempt(request_id="r", reserve_nanos=15)}
)
YESTERDAY = Books(settled_nanos=9, reserved_nanos=15, limit_nanos=30, window="day", period="2026-11-20", open=OPEN.open)


def budgeted(books: Books, budget: Budget) -> ThreadConfigured | Refused:
    return configure(books, Settings(), Change(budget=budget), "r", "why", NOON)


def configured(books: Books, limit: str | None, window: Window = "none") -> ThreadConfigured:
    found = budgeted(books, Budget(limit_usd=limit, window=window))
    assert isinstance(found, ThreadConfigured), found
    return found


def test_a_limit_is_set_and_taken_away() -> None:
    event = configured(Books(settled_nanos=5), "2.5")
    assert (event.limit_nanos, event.settled_nanos, event.reason, event.request_id) == (2_500_000_000, 5, "why", "r")
    assert configured(books_of(event, 3), None).limit_nanos is None


def test_a_configuration_is_remembered_by_its_sequence() -> None:
    assert books_of(configured(Books(), "1"), 17).config_seq == 17


def test_a_limit_below_what_is_spent_and_reserved_is_refused() -> None:
    assert configured(OPEN, "0.000000016").limit_nanos == 16
    found = budgeted(OPEN, Budget(limit_usd="0.000000015"))
    assert isinstance(found, Refused)
    assert (found.code, found.param) == ("conflict", "budget.limit_usd")


def test_what_was_settled_yesterday_stands_in_the_way_of_no_limit_today() -> None:
    assert configured(YESTERDAY, "0.000000015", "day").settled_nanos == 0


@pytest.mark.parametrize(
    ("budget", "param"),
    [
        (Budget(limit_usd="1", time_zone="Mars/Olympus"), "budget.time_zone"),
        (Budget(limit_usd="1", warn_at=0.0), "budget.warn_at"),
        (Budget(limit_usd="1", warn_at=1.5), "budget.warn_at"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_with_the_field_at_fault(budget: Budget, param: str) -> None:
    found = budgeted(Books(), budget)
    assert isinstance(found, Refused)
    assert (found.code, found.param) == ("invalid_request", param)


def test_windows_turn_at_midnight_in_the_zone_of_the_budget() -> None:
    found = budgeted(Books(), Budget(window="day", time_zone="Pacific/Auckland"))
    assert isinstance(found, ThreadConfigured)
    assert (found.zone, found.period) == ("Pacific/Auckland", "2026-11-22")


@pytest.mark.parametrize("limit", ["", "-1", "much"])
def test_a_limit_that_is_no_amount_is_refused(limit: str) -> None:
    found = budgeted(Books(), Budget(limit_usd=limit))
    assert isinstance(found, Refused)
    assert (found.code, found.param) == ("invalid_request", "budget.limit_usd")


def test_a_new_window_starts_with_nothing_settled() -> None:
    event = configured(Books(settled_nanos=5, tokens=Usage(input_tokens=3)), None, "month")
    assert (event.settled_nanos, event.window, event.period, event.tokens) == (
        0,
        "month",
        "2026-11",
        Usage(input_tokens=3),
    )


def test_the_books_travel_whole_on_every_event() -> None:
    assert set(fields(Books())) == set(Books.__struct_fields__)
    assert Books(**fields(YESTERDAY)) == YESTERDAY
