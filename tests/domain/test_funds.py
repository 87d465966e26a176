"""A request that must fit budgets above its thread: when more is asked for, and what an answer still says."""

from typing import Any

import pytest
from given import NOON, a_model, a_moment, a_rate, a_request, chat
from trunkline_actors.money import (
    USEFUL_OUTPUT,
    Budget,
    Exceeded,
    Fund,
    Reserve,
    Reserved,
    Underfunded,
    Waiting,
    reserve,
)
from trunkline_actors.routing import decide
from trunkline_actors.thread_settings import Change, Settings, configure
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, RequestRefused, RouteDecided

INPUT = 5


def asking(max_tokens: int | None = None, *, clamp: bool = True, funds: tuple[Fund, ...], **more: Any) -> Reserve:
    """Each token costs a nano-dollar; the model makes at most 1,000."""
    return Reserve(
        attempt_id="r-1",
        request_id="r",
        rate=a_rate(1, 1),
        input_bound=INPUT,
        max_tokens=max_tokens,
        model_max=1000,
        clamp=clamp,
        funds=funds,
        **more,
    )


def fund(free: int, possible: int = 10**6, answer: Refused | None = None, scope: str = "gateway") -> Fund:
    return Fund(scope=scope, slice="s", free_nanos=free, possible_nanos=possible, answer=answer)


def short(kind: type[Exceeded | Waiting], needed: int) -> Refused:
    return kind(code="budget_exceeded", message="m", scope="gateway", needed_nanos=needed)


def underfunded(command: Reserve) -> Underfunded:
    found = reserve(Books(), command, NOON)
    assert isinstance(found, Underfunded), found
    return found


@pytest.mark.parametrize(
    ("command", "needed", "wanted", "floor"),
    [
        (asking(funds=(fund(0),)), INPUT + USEFUL_OUTPUT, INPUT + 1000, INPUT + 1),
        (asking(funds=(fund(0, 100),)), 100, INPUT + 1000, INPUT + 1),
        (asking(funds=(fund(0, 0),)), INPUT + 1, INPUT + 1000, INPUT + 1),
        (asking(50, clamp=False, funds=(fund(0, 10),)), INPUT + 50, INPUT + 50, INPUT + 50),
        (asking(generates=False, funds=(fund(0),)), INPUT, INPUT, INPUT),
        (asking(max_cost_nanos=200, funds=(fund(0),)), 200, 200, INPUT + 1),
    ],
)
def test_more_is_asked_for_with_what_is_needed_wanted_and_the_very_least(
    command: Reserve, needed: int, wanted: int, floor: int
) -> None:
    found = underfunded(command)
    assert (found.needed_nanos, found.wanted_nanos, found.floor_nanos) == (needed, wanted, floor)


def test_no_budget_is_asked_for_more_than_the_others_could_ever_give() -> None:
    first, second = fund(100, scope="key:1"), fund(100, 100)
    assert (first.free_nanos, underfunded(asking(funds=(first, second))).needed_nanos) == (100, 100)
    kept_out = short(Waiting, 900)
    command = asking(funds=(fund(100, answer=kept_out, scope="key:1"), fund(100, 100, answer=kept_out)))
    found = reserve(Books(), command, NOON)
    assert isinstance(found, Reserved)
    assert found.reserve_nanos == 100
    nearly_spent = Books(limit_nanos=1000, settled_nanos=900)
    found = reserve(nearly_spent, asking(funds=(fund(100, answer=kept_out),)), NOON)
    assert isinstance(found, Reserved)
    assert found.reserve_nanos == 100


@pytest.mark.parametrize(
    ("answer", "holds"),
    [
        (short(Exceeded, 261), True),
        (short(Exceeded, 260), True),
        (short(Exceeded, 262), False),
        (short(Waiting, 261), True),
        (short(Waiting, 100), True),
        (short(Waiting, 262), False),
        (Refused(code="unavailable", message="m"), True),
    ],
)
def test_an_answer_says_nothing_of_a_request_that_takes_less(answer: Refused, *, holds: bool) -> None:
    found = reserve(Books(), asking(funds=(fund(0, answer=answer),)), NOON)
    assert (found is answer) is holds
    if not holds:
        assert isinstance(found, Underfunded)


def test_who_waits_does_not_ask_again_for_a_little_less_whenever_something_is_spent() -> None:
    waiting = short(Waiting, 101)
    assert reserve(Books(), asking(funds=(fund(0, 100, answer=waiting),)), NOON) is waiting


def test_what_is_refused_for_good_is_asked_for_again_when_more_is_known_to_be_spent_and_less_would_do() -> None:
    assert underfunded(asking(funds=(fund(0, 100, answer=short(Exceeded, 101)),))).needed_nanos == 100


@pytest.mark.parametrize("kind", [Exceeded, Waiting])
def test_a_dear_candidate_that_got_no_money_does_not_keep_a_cheap_one_from_asking(kind: type[Exceeded]) -> None:
    moment = a_moment(a_model("m"), a_model("n"), rates={"m": a_rate(9, 9), "n": a_rate(1, 1)})
    request = a_request(chat(max_tokens=10, route={"fallbacks": ["n"]}))
    first = decide(Books(), request, moment, (fund(0),))
    assert isinstance(first, Underfunded)
    second = decide(Books(), request, moment, (fund(0, answer=short(kind, first.needed_nanos)),))
    assert isinstance(second, Underfunded)
    assert second.needed_nanos * 9 == first.needed_nanos
    last = decide(Books(), request, moment, (fund(0, answer=short(kind, second.needed_nanos)),))
    assert isinstance(last, RequestRefused if kind is Exceeded else Waiting)
    served = decide(Books(), request, moment, (fund(second.needed_nanos, answer=short(kind, first.needed_nanos)),))
    assert isinstance(served, RouteDecided)
    assert (served.model, served.slices) == ("n", {"gateway": "s"})


def test_a_thread_s_time_zone_must_be_one() -> None:
    found = configure(
        Books(), Settings(), Change(budget=Budget(window="day", time_zone="Mars/Olympus")), "r", None, NOON
    )
    assert isinstance(found, Refused)
    assert found.param == "budget.time_zone"
