"""A thread's ledger: reserve before dispatch, settle after, never exceed."""

import pytest
from given import DAY, NOON, a_rate
from trunkline_actors.money import (
    MAX_OPEN,
    UNBOUNDED_OUTPUT,
    USEFUL_OUTPUT,
    Exceeded,
    Fund,
    Reserve,
    Reserved,
    Underfunded,
    Waiting,
    close,
    over_budget,
    reserve,
    turn,
    warn,
)
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, OpenAttempt
from trunkline_events.usage import Usage
from trunkline_projections.threads import books_of

TOKEN = a_rate(1, 1)
"""Each token costs a nano-dollar."""


def asking(
    max_tokens: int | None = 10,
    *,
    input_bound: int = 5,
    model_max: int | None = None,
    clamp: bool = False,
    generates: bool = True,
    choices: int = 1,
    max_cost_nanos: int | None = None,
    attempt_id: str = "r-1",
    funds: tuple[Fund, ...] = (),
) -> Reserve:
    return Reserve(
        attempt_id=attempt_id,
        request_id=attempt_id.partition("-")[0],
        rate=TOKEN,
        input_bound=input_bound,
        max_tokens=max_tokens,
        model_max=model_max,
        clamp=clamp,
        generates=generates,
        choices=choices,
        max_cost_nanos=max_cost_nanos,
        funds=funds,
    )


def reserved(books: Books, command: Reserve, now: float = NOON) -> Reserved:
    found = reserve(books, command, now)
    assert isinstance(found, Reserved), found
    return found


def refused(books: Books, command: Reserve) -> Refused:
    found = reserve(books, command, NOON)
    assert isinstance(found, Refused), found
    return found


# -- reserving


def test_the_worst_case_is_set_aside() -> None:
    found = reserved(Books(limit_nanos=15), asking())
    assert (found.reserve_nanos, found.max_tokens) == (15, 10)
    assert found.books.reserved_nanos == 15
    assert found.books.open == {"r-1": OpenAttempt(request_id="r", reserve_nanos=15)}


def test_money_that_is_there_to_the_last_nano_dollar_is_not_refused() -> None:
    assert reserved(Books(limit_nanos=40, settled_nanos=15, reserved_nanos=10), asking()).reserve_nanos == 15
    assert refused(Books(limit_nanos=39, settled_nanos=15, reserved_nanos=10), asking()).code == "budget_exceeded"


@pytest.mark.parametrize(
    ("command", "reserve_nanos", "sent"),
    [
        (asking(None), 5 + UNBOUNDED_OUTPUT, None),
        (asking(None, model_max=7), 12, None),
        (asking(9, model_max=7), 14, 9),
        (asking(9, choices=3), 5 + 27, 9),
        (asking(9, generates=False), 5, None),
    ],
)
def test_without_a_limit_what_the_caller_asked_for_is_reserved_and_sent(
    command: Reserve, reserve_nanos: int, sent: int | None
) -> None:
    found = reserved(Books(), command)
    assert (found.reserve_nanos, found.max_tokens) == (reserve_nanos, sent)


@pytest.mark.parametrize(
    ("command", "limit", "tokens", "reserve_nanos"),
    [
        (asking(None, clamp=True), 12, 7, 12),
        (asking(None, clamp=True, model_max=3), 12, 3, 8),
        (asking(None, clamp=True, choices=3), 12, 2, 11),
        (asking(10, clamp=True), 6, 1, 6),
        (asking(None), 5 + UNBOUNDED_OUTPUT, UNBOUNDED_OUTPUT, 5 + UNBOUNDED_OUTPUT),
    ],
)
def test_where_money_is_limited_the_output_is_bounded_to_what_it_affords(
    command: Reserve, limit: int, tokens: int, reserve_nanos: int
) -> None:
    found = reserved(Books(limit_nanos=limit), command)
    assert (found.max_tokens, found.reserve_nanos) == (tokens, reserve_nanos)


@pytest.mark.parametrize(
    "command",
    [
        asking(None, clamp=True, input_bound=12),
        asking(None, clamp=True, input_bound=13),
        asking(8),
        asking(None, clamp=False),
        asking(3, choices=3),
        asking(generates=False, input_bound=13),
    ],
)
def test_what_is_not_affordable_even_at_its_least_is_refused(command: Reserve) -> None:
    assert refused(Books(limit_nanos=12), command).code == "budget_exceeded"


def test_embeddings_reserve_their_input_alone() -> None:
    assert reserved(Books(limit_nanos=12), asking(generates=False, input_bound=12)).reserve_nanos == 12


def test_the_callers_own_limit_holds_without_a_budget_and_is_not_the_threads_fault() -> None:
    assert reserved(Books(), asking(None, clamp=True, max_cost_nanos=8)).max_tokens == 3
    found = refused(Books(limit_nanos=1000), asking(10, max_cost_nanos=14))
    assert (found.code, found.param, found.retryable) == ("no_route", "route.max_cost_usd", False)
    assert refused(Books(limit_nanos=10), asking(10, max_cost_nanos=15)).code == "budget_exceeded"


def test_a_thread_runs_only_so_many_requests_at_once() -> None:
    one = OpenAttempt(request_id="r", reserve_nanos=0)
    books = Books(open={f"r{n}-1": one for n in range(MAX_OPEN)})
    found = refused(books, asking())
    assert (found.code, found.metadata) == ("unavailable", {"open": MAX_OPEN})
    reserved(Books(open={f"r{n}-1": one for n in range(MAX_OPEN - 1)}), asking())


@pytest.mark.parametrize(("settled", "retryable"), [(0, True), (5, True), (6, False)])
def test_a_retry_helps_where_only_reservations_stand_in_the_way(settled: int, retryable: bool) -> None:
    held = {"q-1": OpenAttempt(request_id="q", reserve_nanos=14), "p-2": OpenAttempt(request_id="p", reserve_nanos=0)}
    books = Books(limit_nanos=20, settled_nanos=settled, reserved_nanos=14, open=held)
    found = refused(books, asking())
    assert (found.code, found.retryable) == ("budget_exceeded", retryable)
    assert found.metadata == {
        "budget": "thread",
        "limit_usd": "0.00000002",
        "settled_usd": f"0.00000000{settled}" if settled else "0",
        "reserved_usd": "0.000000014",
        "needed_usd": "0.000000015",
        "window": "none",
        "resets_at": None,
        "requests": ["p", "q"],
        "more_requests": 0,
    }


def test_a_refusal_names_all_the_amounts() -> None:
    message = over_budget(
        Books(limit_nanos=10**9, settled_nanos=2 * 10**8, reserved_nanos=3 * 10**8, window="day"), 6 * 10**8, NOON
    ).message
    for amount in ("$1 ", "$0.2 ", "$0.3 ", "$0.6,", "2026-11-22T00:00:00"):
        assert amount in message


def test_who_is_kept_out_by_reservations_alone_waits_and_who_by_what_is_spent_does_not() -> None:
    held = {"q-1": OpenAttempt(request_id="q", reserve_nanos=14)}
    assert isinstance(refused(Books(limit_nanos=20, reserved_nanos=14, open=held), asking()), Waiting)
    assert isinstance(refused(Books(limit_nanos=20, settled_nanos=14), asking()), Exceeded)
    one = OpenAttempt(request_id="r", reserve_nanos=0)
    full = Books(open={f"r{n}-1": one for n in range(MAX_OPEN)})
    assert isinstance(refused(full, asking()), Waiting)


def test_a_clamped_answer_waits_for_a_useful_length_and_takes_less_only_where_there_is_no_more() -> None:
    asked = asking(None, clamp=True, model_max=1000)
    held = {"q-1": OpenAttempt(request_id="q", reserve_nanos=900)}
    found = refused(Books(limit_nanos=1000, reserved_nanos=900, open=held), asked)
    assert isinstance(found, Waiting)
    assert found.needed_nanos == 5 + USEFUL_OUTPUT
    assert reserved(Books(limit_nanos=1000, settled_nanos=900), asked).max_tokens == 95
    assert reserved(Books(limit_nanos=1000, reserved_nanos=700, open=held), asked).max_tokens == 295


# -- budgets above the thread


def fund(free: int, possible: int = 10**6, answer: Refused | None = None) -> Fund:
    return Fund(scope="gateway", slice="s", free_nanos=free, possible_nanos=possible, answer=answer)


def test_a_request_must_fit_all_its_budgets() -> None:
    assert reserved(Books(limit_nanos=15), asking(funds=(fund(15), fund(20)))).reserve_nanos == 15
    assert isinstance(refused(Books(limit_nanos=15), asking(funds=(fund(20), fund(14)))), Underfunded)
    assert isinstance(refused(Books(limit_nanos=14), asking(funds=(fund(20),))), Exceeded)


def test_a_slice_that_is_too_small_asks_for_what_is_needed_and_says_what_would_do_better() -> None:
    found = refused(Books(), asking(None, clamp=True, model_max=1000, funds=(fund(300),)))
    assert isinstance(found, Underfunded)
    assert (found.needed_nanos, found.wanted_nanos) == (5 + USEFUL_OUTPUT, 1005)


def test_what_could_not_be_leased_is_made_do_without_where_the_answer_may_be_shorter() -> None:
    answer = Waiting(code="budget_exceeded", message="m", scope="gateway", needed_nanos=1005)
    found = reserved(Books(), asking(None, clamp=True, model_max=1000, funds=(fund(300, answer=answer),)))
    assert found.max_tokens == 295
    assert refused(Books(), asking(1000, funds=(fund(300, answer=answer),))) is answer


def test_money_above_the_thread_bounds_every_call() -> None:
    assert reserved(Books(), asking(None, model_max=7, funds=(fund(100),))).max_tokens == 7


# -- warnings


@pytest.mark.parametrize(
    ("settled", "limit", "warn_at", "warned", "told"),
    [
        (80, 100, 0.8, False, True),
        (79, 100, 0.8, False, False),
        (80, 100, 0.8, True, False),
        (80, None, 0.8, False, False),
        (80, 100, None, False, False),
        (100, 100, 1.0, False, True),
    ],
)
def test_a_warning_is_told_once_when_its_share_is_spent(
    settled: int, limit: int | None, warn_at: float | None, *, warned: bool, told: bool
) -> None:
    event = warn(Books(settled_nanos=settled, limit_nanos=limit, warn_at=warn_at, warned=warned), "r")
    assert (event is not None) is told
    if event is not None:
        assert (event.warned, event.settled_nanos) == (True, settled)
        assert warn(books_of(event, 1), "r") is None


def test_a_new_window_may_warn_again() -> None:
    assert turn(Books(window="day", period="2026-11-20", warned=True), NOON).warned is False


# -- closing

OPEN = Books(
    settled_nanos=1, reserved_nanos=15, limit_nanos=20, open={"r-1": OpenAttempt(request_id="r", reserve_nanos=15)}
)


def test_closing_settles_the_cost_and_releases_the_reservation() -> None:
    usage = Usage(input_tokens=3, output_tokens=4)
    after = close(OPEN, "r-1", 7, usage, NOON)
    assert after == Books(settled_nanos=8, reserved_nanos=0, limit_nanos=20, tokens=usage)


def test_closing_twice_is_a_no_op() -> None:
    after = close(OPEN, "r-1", 7, Usage(), NOON)
    assert after is not None
    assert close(after, "r-1", 7, Usage(), NOON) is None
    assert close(OPEN, "never-1", 7, Usage(), NOON) is None


# -- windows


YESTERDAY = Books(settled_nanos=9, reserved_nanos=15, limit_nanos=30, window="day", period="2026-11-20", open=OPEN.open)


def test_what_was_settled_in_an_earlier_period_no_longer_counts_and_what_is_reserved_does() -> None:
    after = turn(YESTERDAY, NOON)
    assert (after.settled_nanos, after.reserved_nanos, after.period) == (0, 15, "2026-11-21")
    assert reserved(YESTERDAY, asking(attempt_id="q-1")).books.reserved_nanos == 30


def test_an_attempt_is_settled_in_the_period_it_ends_in() -> None:
    after = close(YESTERDAY, "r-1", 7, Usage(), NOON)
    assert after is not None
    assert (after.settled_nanos, after.period) == (7, "2026-11-21")


def test_a_process_whose_clock_is_slow_turns_no_window_back() -> None:
    today = turn(Books(settled_nanos=9, window="day", period="2026-11-21"), NOON - DAY)
    assert (today.settled_nanos, today.period) == (9, "2026-11-21")
