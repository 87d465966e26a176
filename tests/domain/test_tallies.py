"""What calls took, cost and came to: counted, forgotten after five minutes, and put together over processes."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from given import a_model, a_registry
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors import standings
from trunkline_actors.series import Kept, Series
from trunkline_actors.standings import AT_ONCE, FORGOTTEN, RENEWED, Standings, Statistics, Told
from trunkline_actors.tallies import SLOT_SECONDS, SLOTS, Line, Tally, Window
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.registry import Canary
from trunkline_events.thread import Aborted, AttemptFailed, Ending, UsageRecorded
from trunkline_events.usage import Usage

LINE = Line("p", "m", "1")
REGISTRY = a_registry(a_model("m", canary=Canary(version="2", provider="q", upstream="m", weight=0.1)))
NEAR = 0.05
COMMON: dict[str, Any] = {"request_id": "r", "attempt_id": "r-1", "attempt": 1, "model": "m", "provider": "p"}


def settled(
    latency: float = 1000.0, ttft: float | None = 200.0, tokens: int = 80, kind: type[Any] = UsageRecorded, **more: Any
) -> Ending:
    fields = {
        "usage": Usage(input_tokens=10, output_tokens=tokens),
        "cost_nanos": 500,
        "price_version": "v",
        "latency_ms": latency,
        "ttft_ms": ttft,
        "finish": "stop",
    }
    ending: Ending = kind(**{**COMMON, **fields, **more})
    return ending


def calls(*endings: Ending) -> Tally:
    tally = Tally()
    for ending in endings:
        tally.ended(None, ending)
    return tally


def told(*lines: tuple[Line, int, Tally], process: str = "a") -> Statistics:
    return Statistics(
        process=process,
        lines=[
            Told(provider=line.provider, model=line.model, version=line.version, in_flight=running, tally=tally)
            for line, running, tally in lines
        ],
    )


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


# --- messages


def test_what_a_process_tells_survives_the_wire() -> None:
    lines = [
        Told(provider="p", model=f"m{n}", version="1", in_flight=n, tally=calls(settled(n + 1.0))) for n in range(9)
    ]
    read = list(map(standings.read, standings.parts("a", lines, most=10**6)))
    assert read == [Statistics(process="a", lines=lines)]


def test_many_lines_go_in_parts_that_stay_small() -> None:
    tally = calls(*[settled(1.2**n) for n in range(100)])
    lines = [Told(provider="p", model=f"m{n}", version="1", in_flight=0, tally=tally) for n in range(200)]
    parts = list(standings.parts("a", lines, most=20_000))
    assert max(map(len, parts)) < 21_000
    read = [part for part in map(standings.read, parts) if part]
    assert [told for part in read for told in part.lines] == lines


def test_nothing_to_tell_is_no_message() -> None:
    assert list(standings.parts("a", [], most=1)) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\x00", id="no text"),
        pytest.param(b"[" * 5_000, id="deep"),
        pytest.param(b'{"process": "a"}', id="no lines"),
        pytest.param(b'{"process":"a","lines":[["p","m","1",-1,{}]]}', id="fewer than none in flight"),
        pytest.param(b'{"process":"a","lines":[["p","m","1",0,{"latency":{"3":-1}}]]}', id="fewer than no calls"),
        pytest.param(b'{"process":"a","lines":[["p","m","1",0,{"latency":{"x":1}}]]}', id="no bucket"),
    ],
)
def test_a_message_that_makes_no_sense_is_unreadable(data: bytes) -> None:
    assert standings.read(data) is None


# --- the standings


def test_a_model_is_measured_over_all_processes_that_serve_it() -> None:
    board = Standings()
    board.told(told((LINE, 1, calls(*[settled(100.0)] * 2)), process="a"), 0.0)
    board.told(told((LINE, 2, calls(*[settled(300.0)] * 3)), process="b"), 0.0)
    measured = board.measured(REGISTRY, 0.0)["m"]
    assert measured == calls(*[settled(100.0)] * 2, *[settled(300.0)] * 3).measured(in_flight=3)


def test_a_process_that_tells_again_is_not_counted_twice() -> None:
    board = Standings()
    board.told(told((LINE, 1, calls(settled()))), 0.0)
    board.told(told((LINE, 0, calls(settled(), settled()))), 0.2)
    measured = board.measured(REGISTRY, 0.2)["m"]
    assert (measured.calls, measured.in_flight) == (2, 0)


def test_a_canary_goes_by_its_version_and_other_versions_are_not_shown() -> None:
    board = Standings()
    board.told(
        told(
            (LINE, 0, calls(settled())),
            (Line("q", "m", "2"), 0, calls(*[settled()] * 2)),
            (Line("p", "m", "0"), 0, calls(*[settled()] * 4)),  # of a time before
            (Line("old", "m", "1"), 0, calls(*[settled()] * 8)),  # at a provider that served it before
            (Line("p", "gone", "1"), 0, calls(settled())),
        ),
        0.0,
    )
    measured = board.measured(REGISTRY, 0.0)
    assert {name: one.calls for name, one in measured.items()} == {"m": 1, "m@2": 2}
    assert {version: one.calls for version, one in board.versions("m", 0.0).items()} == {"0": 4, "1": 9, "2": 2}


def test_a_promoted_canary_takes_its_numbers_along() -> None:
    board = Standings()
    board.told(told((LINE, 0, calls(settled())), (Line("q", "m", "2"), 0, calls(settled(), settled()))), 0.0)
    assert {name: one.calls for name, one in board.measured(REGISTRY, 0.0).items()} == {"m": 1, "m@2": 2}
    promoted = a_registry(a_model("m", provider="q", version="2"))
    assert {name: one.calls for name, one in board.measured(promoted, 0.0).items()} == {"m": 2}
    assert board.measured(a_registry(), 0.0) == {}
    assert {name: one.calls for name, one in board.measured(REGISTRY, 0.0).items()} == {"m": 1, "m@2": 2}


def test_the_mapping_is_the_same_object_while_nothing_changed() -> None:
    board = Standings()
    board.told(told((LINE, 0, calls(settled()))), 0.0)
    first = board.measured(REGISTRY, 0.0)
    assert board.measured(REGISTRY, 0.01) is first
    board.told(told((LINE, 0, calls(settled()))), 4.5)  # a refresh
    assert board.measured(REGISTRY, 5.0) is first
    board.told(told((Line("p", "other", "1"), 0, calls(settled()))), 5.0)  # not registered
    assert board.measured(REGISTRY, 6.0) is first
    assert board.measured(a_registry(*REGISTRY.models.values()), 6.0) is first, "nothing of it is different"
    board.told(told((LINE, 1, calls(settled()))), 6.5)
    assert board.measured(REGISTRY, 7.0)["m"].in_flight == 1


def test_what_is_told_in_a_burst_is_put_together_ten_times_a_second_at_most() -> None:
    board = Standings()
    moments = [n / 100 for n in range(100)]
    seen = []
    for n, now in enumerate(moments):
        board.told(told((LINE, n + 1, Tally())), now)
        seen.append(board.measured(REGISTRY, now))
    assert len({id(one) for one in seen}) <= 1 / RENEWED + 1
    assert board.measured(REGISTRY, 2.0)["m"].in_flight == 100


def test_many_models_that_changed_at_once_are_put_together_little_by_little() -> None:
    names = [f"m{n}" for n in range(2 * AT_ONCE + 1)]
    registry = a_registry(*map(a_model, names))
    board = Standings()
    board.measured(registry, 0.0)
    board.told(told(*[(Line("p", name, "1"), 1, Tally()) for name in names]), 1.0)
    seen = [len(board.measured(registry, moment)) for moment in (1.0, 1.05, 1.2, 1.4, 1.6)]
    assert seen == [AT_ONCE, AT_ONCE, 2 * AT_ONCE, len(names), len(names)]


def test_the_numbers_of_a_process_that_fell_silent_go_and_those_of_others_stay() -> None:
    board = Standings()
    board.told(told((LINE, 3, calls(settled())), process="dead"), 0.0)
    board.told(told((LINE, 1, calls(settled())), process="alive"), 0.0)
    assert board.measured(REGISTRY, 1.0)["m"].in_flight == 4
    board.told(told((LINE, 1, calls(settled())), process="alive"), FORGOTTEN - 1)
    assert board.measured(REGISTRY, FORGOTTEN)["m"].in_flight == 4
    measured = board.measured(REGISTRY, FORGOTTEN + 1.1)["m"]
    assert (measured.in_flight, measured.calls) == (1, 1)
    assert board.measured(REGISTRY, 3 * FORGOTTEN) == {}


def test_a_line_that_is_empty_goes_at_once() -> None:
    board = Standings()
    board.told(told((LINE, 1, Tally())), 0.0)
    assert "m" in board.measured(REGISTRY, 0.0)
    board.told(told((LINE, 0, Tally())), 1.0)
    board.told(told((LINE, 0, Tally()), process="another"), 1.0)
    assert board.measured(REGISTRY, 1.0) == {}
    assert board.versions("m", 1.0) == {}


def test_before_anybody_told_anything_there_are_no_statistics() -> None:
    assert Standings().measured(REGISTRY, 0.0) == {}


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
