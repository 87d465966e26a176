"""A holder's slice in memory, and what the log says of slices to whoever closes those of the dead."""

from typing import Any

import pytest
from given import NOON, a_decision
from msgspec import structs
from trunkline_actors.purse import Purse
from trunkline_events.budget import (
    BudgetRefused,
    BudgetReserved,
    BudgetSet,
    BudgetSettled,
    ScopeWarned,
    Slice,
)
from trunkline_events.envelope import Event
from trunkline_events.thread import (
    Aborted,
    AttemptFailed,
    BudgetWarned,
    Orphaned,
    RequestRefused,
    ThreadConfigured,
    UsageRecorded,
)
from trunkline_events.usage import Usage
from trunkline_projections.attempts import Pending, SliceUse, UnderWay, evolve

# -- a purse


def a_purse(granted: int = 100, spent: int = 0, **open_: int) -> Purse:
    return Purse(scope="gateway", slice="s", period="", granted_nanos=granted, spent_nanos=spent, open=open_)


def test_what_is_spent_or_set_aside_is_not_free() -> None:
    purse = a_purse(100, 20, a=30)
    assert (purse.reserved_nanos, purse.free_nanos) == (30, 50)
    purse.take("b", 50, now=7.0)
    assert (purse.free_nanos, purse.used_at) == (0, 7.0)


def test_an_attempt_that_ends_gives_back_what_it_did_not_cost_and_told_twice_it_counts_once() -> None:
    purse = a_purse(100, a=30)
    assert purse.give_back("a", 12)
    assert (purse.spent_nanos, purse.free_nanos) == (12, 88)
    assert not purse.give_back("a", 12)
    assert not purse.give_back("never", 5)
    assert purse.spent_nanos == 12


def test_what_cost_more_than_there_was_is_not_paid_by_what_is_leased_next() -> None:
    purse = a_purse(20, 50)
    assert purse.free_nanos == 0
    assert a_purse(20, 50, a=10).free_nanos == -10


@pytest.mark.parametrize(
    ("used_at", "recalled_until", "keeps"),
    [
        (9.0, 0.0, 80),
        (7.0, 0.0, 80),
        (6.9, 0.0, 30),
        (9.0, 10.1, 30),
        (9.0, 10.0, 80),
    ],
)
def test_what_is_free_is_kept_unless_nobody_used_it_lately_or_others_want_it(
    used_at: float, recalled_until: float, keeps: int
) -> None:
    purse = a_purse(100, 20, a=30)
    purse.used_at, purse.recalled_until = used_at, recalled_until
    assert purse.keeps(now=10.0, idle=3.0) == keeps


def test_what_runs_is_kept_also_where_more_was_spent_than_granted() -> None:
    purse = a_purse(20, 50, a=10)
    purse.used_at = 10.0
    assert purse.keeps(now=10.0, idle=3.0) == 10


def test_money_on_its_way_back_is_not_given_out_and_a_report_grants_nothing() -> None:
    purse = a_purse(100, 20, a=30)
    purse.lowered_to(30)
    assert (purse.granted_nanos, purse.free_nanos) == (50, 0)
    purse.lowered_to(90)
    assert purse.granted_nanos == 50


# -- what is under way


def leased(granted: int = 100, spent: int = 0, name: str = "s", *, frozen: bool = False) -> BudgetReserved:
    held = Slice(holder="p", period="", granted_nanos=granted, spent_nanos=spent, frozen=frozen)
    return BudgetReserved(slice=name, amount_nanos=granted, slices={name: held})


def reported(spent: int, name: str = "s", *, frozen: bool = False) -> BudgetSettled:
    held = Slice(holder="p", period="", granted_nanos=100, spent_nanos=spent, frozen=frozen)
    return BudgetSettled(slice=name, spent_nanos=spent, returned_nanos=0, slices={name: held})


FROZEN = reported(0, frozen=True)
CLOSED = BudgetSettled(slice="s", spent_nanos=0, returned_nanos=100, closed=True)
ENDING: dict[str, Any] = {"request_id": "r", "attempt_id": "r-1", "attempt": 1, "model": "m", "provider": "p"}
METERED: dict[str, Any] = {"usage": Usage(), "price_version": "v", "latency_ms": 1.0, "ttft_ms": None, "finish": "stop"}
TAKES = {"gateway": "s"}


def folded(*facts: Event) -> UnderWay:
    state = UnderWay()
    for sequence, fact in enumerate(facts, 1):
        thread = isinstance(fact, BudgetReserved | BudgetSettled | BudgetSet | BudgetRefused | ScopeWarned)
        state = evolve(state, fact, sequence, "gateway" if thread else "t")  # type: ignore[arg-type]
    return state


def test_an_attempt_is_under_way_from_its_decision_to_its_end() -> None:
    state = folded(a_decision())
    assert state.attempts == {"r-1": Pending(aggregate="t", attempt_id="r-1", sequence=1, deadline=NOON + 60)}
    assert folded(a_decision(), AttemptFailed(**ENDING, failure="timeout")).attempts == {}


def test_a_slice_is_leased_until_it_is_closed() -> None:
    assert folded(leased()).slices == {"s": SliceUse(scope="gateway", holder="p")}
    assert folded(leased(), CLOSED).slices == {}
    assert folded(CLOSED).slices == {}


def test_what_an_attempt_may_cost_is_taken_from_each_of_its_slices() -> None:
    state = folded(leased(), leased(name="k"), a_decision(slices={"gateway": "s", "key:1": "k", "team:x": "gone"}))
    assert state.slices["s"].open == state.slices["k"].open == {"r-1": 5}


@pytest.mark.parametrize(
    ("ending", "cost"),
    [
        (UsageRecorded(**ENDING, **METERED, cost_nanos=3, slices=TAKES), 3),
        (Aborted(**ENDING, **METERED, cost_nanos=2, slices=TAKES), 2),
        (Orphaned(**ENDING, cost_nanos=5, last_seen=1.0, slices=TAKES), 5),
        (AttemptFailed(**ENDING, failure="timeout", slices=TAKES), 0),
    ],
)
def test_what_an_attempt_cost_is_spent_of_its_slice_once(ending: Event, cost: int) -> None:
    state = folded(leased(), a_decision(slices=TAKES), ending, ending)
    assert state.slices["s"] == SliceUse(scope="gateway", holder="p", spent_nanos=cost)


@pytest.mark.parametrize(
    ("before", "void"),
    [((leased(),), False), ((leased(), FROZEN), True), ((leased(), CLOSED), True), ((), True)],
)
def test_what_takes_from_a_slice_that_is_frozen_or_gone_is_void(before: tuple[Event, ...], *, void: bool) -> None:
    assert folded(*before, a_decision(slices=TAKES)).attempts["r-1"].void is void
    free = structs.replace(a_decision(slices=TAKES), reserve_nanos=0)
    assert folded(*before, free).attempts["r-1"].void is False, "what costs nothing takes from no slice"


def test_a_decision_after_its_slice_was_frozen_takes_nothing_and_costs_it_nothing() -> None:
    late = UsageRecorded(**ENDING, **METERED, cost_nanos=3, slices=TAKES)
    state = folded(leased(), FROZEN, a_decision(slices=TAKES))
    assert state.slices["s"] == SliceUse(scope="gateway", holder="p", frozen=True)
    assert folded(leased(), FROZEN, a_decision(slices=TAKES), late).slices["s"].spent_nanos == 0


def test_a_decision_before_its_slice_was_frozen_counts() -> None:
    state = folded(leased(), a_decision(slices=TAKES), FROZEN)
    assert state.slices["s"] == SliceUse(scope="gateway", holder="p", open={"r-1": 5}, frozen=True)


def test_an_attempt_that_takes_from_no_slice_ends_and_leaves_slices_alone() -> None:
    late = UsageRecorded(**ENDING, **METERED, cost_nanos=3, slices={"gateway": "gone"})
    assert folded(leased(), a_decision(), late).slices["s"] == SliceUse(scope="gateway", holder="p")


def test_what_its_holder_reported_is_known() -> None:
    assert folded(leased(), reported(7)).slices["s"].reported_nanos == 7
    assert folded(leased(), leased(120, 9)).slices["s"].reported_nanos == 9


def test_nothing_else_is_under_way() -> None:
    asked = a_decision().asked
    refused = RequestRefused(request_id="r", code="budget_exceeded", message="m", asked=asked, needed_nanos=1)
    state = folded(
        ThreadConfigured(request_id="r"),
        refused,
        BudgetWarned(request_id="r"),
        BudgetSet(request_id="r"),
        BudgetRefused(request_id="r", thread="t", needed_nanos=1),
        ScopeWarned(),
    )
    assert state == UnderWay()
