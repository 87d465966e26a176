"""Circuit breakers decide: what calls come to, who may probe, what a probe settles, and when a provider is called."""

from typing import Any

import pytest
from given import NOON, a_provider
from msgspec import structs
from trunkline_actors.circuit import (
    NOTHING,
    OPEN,
    PROBE_GRACE,
    PROBED,
    Tally,
    called,
    kept_out,
    matters,
    offers,
    probe,
    probed,
    reset,
    tallied,
)
from trunkline_events.circuit import CallFailed, Closed, Opened, ProbeStarted, Recovered, Reset
from trunkline_events.failure import FailureClass
from trunkline_events.refusal import Refused
from trunkline_projections.circuits import CLOSED, Circuit, evolve

PROVIDER = a_provider(breaker_failures=3, breaker_open_s=30.0, timeout_s=20.0)
DOWN = FailureClass.UNAVAILABLE
BROKEN = Circuit(state="open", failures=3, opened_at=NOON - 30, retry_at=NOON)
HALF = Circuit(
    state="half-open", failures=3, opened_at=NOON - 40, retry_at=NOON - 10, probe_until=NOON + 5, probe="r-1"
)
ANSWERED = {
    FailureClass.RATE_LIMITED,
    FailureClass.AUTH,
    FailureClass.INVALID_REQUEST,
    FailureClass.CONTEXT_LENGTH,
    FailureClass.CONTENT_FILTER,
    FailureClass.MODEL_NOT_FOUND,
}
COUNTING = {FailureClass.OVERLOADED, FailureClass.UNAVAILABLE, FailureClass.CONNECTION, FailureClass.TIMEOUT}
SILENT = {FailureClass.BUDGET, FailureClass.ABORTED, FailureClass.INTERNAL}


def ends(*outcomes: FailureClass | None) -> Tally:
    """What was tallied of these ends, in order; None is a success."""
    tally = NOTHING
    for outcome in outcomes:
        tally = tallied(tally, outcome)
    return tally


def opened(failures: int = 3) -> Opened:
    return Opened(provider="p", failures=failures, opened_at=NOON, retry_at=NOON + 30)


def failed(failures: int, failure: str = "unavailable") -> CallFailed:
    return CallFailed(provider="p", failure=failure, failures=failures)


RECOVERED = Recovered(provider="p")

# -- what calls come to


@pytest.mark.parametrize(
    ("before", "outcomes", "event"),
    [
        (0, (DOWN,), failed(1)),
        (1, (FailureClass.TIMEOUT,), failed(2, "timeout")),
        (2, (DOWN,), opened()),
        (0, (None,), None),
        (2, (None,), RECOVERED),
        (0, (DOWN, DOWN), failed(2)),
        (0, (DOWN, DOWN, DOWN), opened()),
        (1, (DOWN, DOWN, DOWN), opened(4)),
        (0, (DOWN, None), None),
        (2, (None, DOWN), failed(1)),
        (1, (None, DOWN), None),
        (2, (None, DOWN, DOWN), None),
        (2, (None, DOWN, DOWN, DOWN), opened()),
        (2, (DOWN, None), opened()),
        (0, (None, DOWN, DOWN, DOWN, None), opened()),
        (0, (DOWN, DOWN, None, DOWN), failed(1)),
        (4, (None,), RECOVERED),
        (4, (DOWN,), opened(5)),
    ],
)
def test_ended_calls_come_to_one_event(before: int, outcomes: Any, event: object) -> None:
    """More failures than the provider now allows may have been counted when it allowed more: a success heals them."""
    assert called(Circuit(failures=before), ends(*outcomes), PROVIDER, NOON) == event


@pytest.mark.parametrize("circuit", [BROKEN, HALF])
@pytest.mark.parametrize("outcome", [DOWN, None])
def test_calls_that_began_before_the_circuit_opened_change_nothing(circuit: Circuit, outcome: Any) -> None:
    assert called(circuit, ends(outcome, outcome, outcome), PROVIDER, NOON) is None
    assert not matters(circuit, outcome, pending=True)


@pytest.mark.parametrize("failure", sorted(ANSWERED | SILENT))
def test_other_failures_neither_count_nor_heal(failure: FailureClass) -> None:
    assert not matters(Circuit(failures=2), failure, pending=True)
    assert tallied(ends(DOWN), failure) == ends(DOWN)


@pytest.mark.parametrize("failure", sorted(COUNTING))
def test_a_failure_that_counts_is_tallied_with_its_class(failure: FailureClass) -> None:
    assert matters(CLOSED, failure, pending=False)
    assert called(CLOSED, ends(failure), PROVIDER, NOON) == failed(1, failure)


@pytest.mark.parametrize(
    ("failures", "pending", "so"), [(0, False, False), (1, False, True), (0, True, True), (1, True, True)]
)
def test_a_success_matters_only_after_failures(failures: int, pending: bool, so: bool) -> None:
    assert matters(Circuit(failures=failures), None, pending=pending) is so


# -- who is called


@pytest.mark.parametrize(
    ("circuit", "now", "why"),
    [
        (None, NOON, None),
        (CLOSED, NOON, None),
        (Circuit(failures=2), NOON, None),
        (BROKEN, NOON - 0.001, OPEN),
        (BROKEN, NOON, None),
        (HALF, NOON, PROBED),
        (HALF, NOON + 5, None),
    ],
)
def test_a_router_skips_what_is_open_until_it_may_be_probed(circuit: Circuit | None, now: float, why: str) -> None:
    assert offers(circuit, now) == why


@pytest.mark.parametrize("circuit", [BROKEN, HALF])
def test_who_is_kept_out_reads_why(circuit: Circuit) -> None:
    told = kept_out(circuit, "p")
    assert "'p' is open" in told
    assert ("try again" if circuit is HALF else "until 2026-11-21T12:00:00") in told


# -- probes


def ask(circuit: Circuit, now: float = NOON, deadline: float = NOON + 60) -> ProbeStarted | Refused | None:
    return probe(circuit, PROVIDER, "r-2", deadline, now)


def test_the_first_to_ask_when_it_is_time_probes_for_as_long_as_its_call_may_last() -> None:
    assert ask(BROKEN) == ProbeStarted(provider="p", attempt_id="r-2", until=NOON + 20 + PROBE_GRACE)
    assert ask(BROKEN, deadline=NOON + 7) == ProbeStarted(provider="p", attempt_id="r-2", until=NOON + 7 + PROBE_GRACE)


def test_nobody_probes_before_it_is_time() -> None:
    refused = ask(BROKEN, NOON - 1)
    assert isinstance(refused, Refused)
    assert refused.code == "unavailable"


def test_a_request_without_time_probes_nothing() -> None:
    assert isinstance(ask(BROKEN, deadline=NOON), Refused)


def test_nobody_probes_while_another_does() -> None:
    assert isinstance(ask(HALF), Refused)


def test_another_probes_when_the_time_of_the_last_one_is_over() -> None:
    assert isinstance(ask(HALF, NOON + 5), ProbeStarted)


def test_a_circuit_that_was_closed_meanwhile_needs_no_probe() -> None:
    assert ask(Circuit(failures=1)) is None


def test_a_probe_whose_start_was_answered_late_is_the_same_probe() -> None:
    assert probe(HALF, PROVIDER, "r-1", NOON + 60, NOON) == ProbeStarted(provider="p", attempt_id="r-1", until=NOON + 5)


@pytest.mark.parametrize("failure", [None, *sorted(ANSWERED)])
def test_a_probe_that_was_answered_closes_the_circuit(failure: FailureClass | None) -> None:
    assert probed(HALF, PROVIDER, "r-1", failure, NOON) == Closed(provider="p")


@pytest.mark.parametrize("failure", sorted(COUNTING))
def test_a_probe_that_failed_opens_it_again(failure: FailureClass) -> None:
    assert probed(HALF, PROVIDER, "r-1", failure, NOON) == opened(4)


def test_a_probe_that_was_cut_short_says_nothing_and_another_may_follow_at_once() -> None:
    settled = probed(HALF, PROVIDER, "r-1", FailureClass.ABORTED, NOON)
    assert settled == Opened(provider="p", failures=HALF.failures, opened_at=HALF.opened_at or 0.0, retry_at=NOON)
    without = structs.replace(HALF, opened_at=None)
    assert probed(without, PROVIDER, "r-1", FailureClass.ABORTED, NOON) == structs.replace(settled, opened_at=NOON)


@pytest.mark.parametrize("failure", sorted(SILENT - {FailureClass.ABORTED}))
def test_a_probe_that_came_to_no_sensible_answer_opens_it_again(failure: FailureClass) -> None:
    assert probed(HALF, PROVIDER, "r-1", failure, NOON) == opened(4)


def test_every_class_of_failure_has_its_place() -> None:
    assert set(COUNTING) | ANSWERED | SILENT == set(FailureClass)


@pytest.mark.parametrize(("circuit", "attempt"), [(HALF, "r-2"), (BROKEN, "r-1"), (CLOSED, "r-1")])
@pytest.mark.parametrize("failure", [None, DOWN])
def test_only_the_probe_that_runs_decides(circuit: Circuit, attempt: str, failure: FailureClass | None) -> None:
    assert probed(circuit, PROVIDER, attempt, failure, NOON) is None


def test_a_probe_that_raced_with_the_removal_of_its_provider_is_none_of_the_next_one() -> None:
    event = ProbeStarted(provider="p", attempt_id="r-1", until=NOON)
    assert evolve({}, event, 9)["p"] == Circuit(sequence=9)


# -- by hand


@pytest.mark.parametrize("circuit", [BROKEN, HALF])
def test_a_reset_closes_a_circuit_with_the_reason(circuit: Circuit) -> None:
    event = reset(circuit, "p", "mended")
    assert event == Reset(provider="p", reason="mended")
    assert evolve({"p": circuit}, event, 9)["p"] == Circuit(sequence=9)


def test_a_reset_of_a_closed_circuit_is_none() -> None:
    assert reset(CLOSED, "p", None) is None
    assert reset(Circuit(failures=2), "p", None) is None
