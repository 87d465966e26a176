"""What calls took, cost and came to: counted, forgotten after five minutes, and put together by the minute."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metered import COMMON, calls, settled
from trunkline_actors.series import Kept, Series
from trunkline_actors.tallies import SLOT_SECONDS, SLOTS, Tally, Window
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.thread import Aborted, AttemptFailed, Ending

NEAR = 0.05
# --- one tally


def test_a_call_that_went_well_is_counted_with_all_it_took() -> None:
    measured = calls(settled()).measured(in_flight=2)
    assert (measured.calls, measured.success, measured.in_flight, measured.cost_nanos) == (1, 1.0, 2, 500.0)
    assert measured.p50_ms == measured.p95_ms == pytest.approx(1000, rel=NEAR)
    assert measured.ttft_p50_ms == measured.ttft_p95_ms == pytest.approx(200, rel=NEAR)
    assert measured.tokens_per_s == 100.0, "80 tokens in 0.8 s after the first chunk"


def test_a_plain_answer_has_no_first_chunk_and_its_speed_is_over_its_whole_time() -> None:
    measured = calls(settled(latency=1000.0, ttft=1000.0)).measured()
    assert (measured.ttft_p50_ms, measured.tokens_per_s) == (None, 80.0)


def test_percentiles_tell_many_quick_calls_from_a_few_slow_ones() -> None:
    measured = calls(*[settled(100.0)] * 90, *[settled(5000.0)] * 10).measured()
    assert measured.p50_ms == pytest.approx(100, rel=NEAR)
    assert measured.p95_ms == pytest.approx(5000, rel=NEAR)


def test_nothing_is_measured_of_nothing() -> None:
    assert Tally().measured() == Measured()


@pytest.mark.parametrize(
    "failure",
    [
        FailureClass.RATE_LIMITED,
        FailureClass.OVERLOADED,
        FailureClass.UNAVAILABLE,
        FailureClass.CONNECTION,
        FailureClass.TIMEOUT,
        FailureClass.INTERNAL,
        FailureClass.AUTH,
        FailureClass.MODEL_NOT_FOUND,
    ],
)
def test_what_the_upstream_did_wrong_counts_against_it(failure: FailureClass) -> None:
    tally = calls(settled(), settled(), settled())
    tally.ended(failure, AttemptFailed(**COMMON, failure=failure.value, latency_ms=5.0))
    assert (tally.calls, tally.bad, tally.success) == (4, 1, 0.75)
    assert sum(tally.latency.values()) == 3, "how fast it fails is not how fast it is"


@pytest.mark.parametrize(
    "failure",
    [
        FailureClass.INVALID_REQUEST,
        FailureClass.CONTEXT_LENGTH,
        FailureClass.CONTENT_FILTER,
        FailureClass.ABORTED,
        FailureClass.BUDGET,
    ],
)
def test_what_one_request_or_its_caller_did_counts_neither_way(failure: FailureClass) -> None:
    tally = calls(settled())
    tally.ended(failure, None)
    assert (tally.calls, tally.good, tally.bad, tally.success) == (2, 1, 0, 1.0)


def test_an_aborted_call_costs_what_it_cost_and_says_nothing_about_speed() -> None:
    tally = Tally()
    tally.ended(FailureClass.ABORTED, settled(kind=Aborted, partial=True, estimated=True))
    assert (tally.calls, tally.success, tally.cost_nanos, tally.output_tokens) == (1, 1.0, 500, 80)
    assert (tally.latency, tally.ttft, tally.tokens_per_s) == ({}, {}, None)


def test_a_stream_that_broke_is_billed_and_counts_against_the_upstream() -> None:
    tally = Tally()
    tally.ended(FailureClass.CONNECTION, settled(partial=True, estimated=True))
    assert (tally.bad, tally.settled, tally.success, tally.latency) == (1, 1, 0.0, {})


def test_tokens_that_nobody_counted_say_nothing_about_speed() -> None:
    assert calls(settled(estimated=True), settled(tokens=0)).tokens_per_s is None


def test_an_attempt_that_a_keeper_ended_still_went_well_upstream() -> None:
    tally = Tally()
    tally.ended(None, None)
    assert (tally.calls, tally.good, tally.settled) == (1, 1, 0)


# --- a window


ENDINGS = st.builds(
    settled, st.floats(1, 1e6), st.none() | st.floats(0.1, 1e6), st.integers(0, 1000), estimated=st.booleans()
)


@given(st.lists(st.tuples(ENDINGS, st.floats(0, 400)), max_size=40), st.floats(0, 400))
def test_a_window_holds_what_ended_in_the_last_five_minutes(ended: list[tuple[Ending, float]], after: float) -> None:
    window = Window()
    ended.sort(key=lambda pair: pair[1])
    now = max([moment for _, moment in ended], default=0.0) + after
    for ending, moment in ended:
        window.slide(moment)
        window.add(calls(ending), moment)
    window.slide(now)
    kept = [ending for ending, moment in ended if moment // SLOT_SECONDS > now // SLOT_SECONDS - SLOTS]
    assert window.total == calls(*kept)


def test_a_call_leaves_the_window_after_five_minutes_and_not_before() -> None:
    window = Window()
    window.add(calls(settled()), 100.0)
    assert not window.slide(399.9)
    assert window.total.calls == 1
    assert window.slide(400.0)
    assert window.total == Tally()
    assert not window.slide(500.0)


# --- over time


def kept(version: str, *endings: Ending, provider: str = "p") -> Kept:
    return Kept(provider=provider, version=version, tally=calls(*endings))


def points(minutes: Iterator[tuple[int, Kept]] | list[tuple[int, Kept]], step: int, version: str | None = None) -> Any:
    series = Series(step, version)
    for minute, one in minutes:
        series.add(minute, one)
    return series.points()


def test_minutes_of_all_processes_are_put_together_by_version() -> None:
    first, second, third = points(
        [
            (60, kept("1", settled(100.0))),
            (60, kept("1", settled(100.0), provider="q")),
            (60, kept("2", settled(300.0))),
            (61, kept("1", settled(100.0))),
        ],
        step=1,
    )
    assert (first["at"], first["version"], first["calls"]) == ("1970-01-01T01:00:00.000000Z", "1", 2)
    assert (second["at"], second["version"], second["calls"]) == ("1970-01-01T01:00:00.000000Z", "2", 1)
    assert (third["at"], third["version"], third["calls"]) == ("1970-01-01T01:01:00.000000Z", "1", 1)
    assert first["p50_ms"] == pytest.approx(100, rel=NEAR)
    assert (first["cost_usd"], first["input_tokens"], first["output_tokens"]) == ("0.000001", 20, 160)
    assert (first["failures"], first["success"]) == (0, 1.0)


def test_a_longer_step_begins_at_a_multiple_of_itself() -> None:
    found = points([(minute, kept("1", settled())) for minute in range(58, 66)], step=5)
    assert [(point["at"][11:16], point["calls"]) for point in found] == [("00:55", 2), ("01:00", 5), ("01:05", 1)]


def test_one_version_can_be_asked_for() -> None:
    found = points([(1, kept("1", settled())), (1, kept("2", settled()))], step=1, version="2")
    assert [point["version"] for point in found] == ["2"]


@given(st.lists(ENDINGS, max_size=20))
def test_a_tally_survives_json(endings: list[Ending]) -> None:
    tally = calls(*endings)
    assert msgspec.json.decode(msgspec.json.encode(tally), type=Tally) == tally
