"""What a model's usage would have cost at another price, beside what was booked."""

from typing import Any

import pytest
from given import DAY, NOON, a_rate, recorded
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors.pricing import cost_of
from trunkline_actors.rerate import GROUPINGS, Rerating, Sums, Tally, shown
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.rate import Rate
from trunkline_events.thread import Aborted, AttemptFailed, Metered, Orphaned, UsageRecorded
from trunkline_events.usage import Usage

USAGE = Usage(input_tokens=10, cached_input_tokens=4, output_tokens=5)
TWICE = a_rate(2, 4)
COST = 6 * 2 + 4 * 2 + 5 * 4

_NAMED: dict[str, Any] = {"request_id": "r", "attempt_id": "r-1", "attempt": 1, "provider": "p"}


def metered(kind: type[Metered] = UsageRecorded, booked: int = 7, **more: Any) -> Metered:
    fields = {"model": "m", "usage": USAGE, "cost_nanos": booked, "price_version": "v", "latency_ms": 1.0}
    return kind(**{**_NAMED, **fields, "ttft_ms": None, "finish": "stop", **more})


def orphan(model: str = "m") -> Orphaned:
    return Orphaned(**_NAMED, model=model, cost_nanos=50, last_seen=NOON)


def rerated(*events: RecordedEvent, rate: Rate = TWICE) -> Rerating:
    rerating = Rerating("m", rate)
    for event in events:
        rerating.happened(event)
    return rerating


def test_the_cost_is_worked_out_anew_from_the_usage_and_what_was_booked_stays() -> None:
    assert rerated(recorded(metered())).total == Tally(
        all=Sums(events=1, booked_nanos=7, rerated_nanos=COST), tokens=USAGE
    )


def test_cached_input_has_its_own_price() -> None:
    assert rerated(recorded(metered()), rate=a_rate(2, 4, cached=1)).total.all.rerated_nanos == COST - 4


def test_an_aborted_attempt_counts_as_one_that_ended() -> None:
    assert rerated(recorded(metered(Aborted))).total == rerated(recorded(metered())).total


@pytest.mark.parametrize(
    "body",
    [metered(model="n"), orphan("n"), AttemptFailed(**_NAMED, model="m", failure="timeout")],
    ids=["another model", "an orphan of another model", "a failure, which costs nothing"],
)
def test_what_says_nothing_of_the_models_cost_changes_nothing(body: Any) -> None:
    rerating = rerated(recorded(body))
    assert (rerating.total, rerating.orphans, rerating.unknown) == (Tally(), Sums(), [])


def test_an_estimated_ending_counts_and_is_counted_apart_too() -> None:
    total = rerated(recorded(metered()), recorded(metered(booked=9, estimated=True))).total
    assert total.all == Sums(events=2, booked_nanos=16, rerated_nanos=2 * COST)
    assert total.estimated == Sums(events=1, booked_nanos=9, rerated_nanos=COST)


def test_an_orphan_is_in_no_sum_but_its_own() -> None:
    rerating = rerated(recorded(orphan()), recorded(orphan()))
    assert (rerating.total, rerating.groups["thread"]) == (Tally(), {})
    assert (rerating.orphans.events, rerating.orphans.booked_nanos) == (2, 100)


def test_an_event_of_a_later_version_is_named_where_it_is_of_a_thread() -> None:
    unknown = structs.replace(recorded(metered(), 3), body=Unknown("thread.usage-recorded.v9", b"{}", "new"))
    assert rerated(unknown, structs.replace(unknown, sequence=4, category="model")).unknown == [3]


def test_the_sums_are_told_by_thread_by_key_and_by_day() -> None:
    first, second = recorded(metered(key="k"), 1, "t"), recorded(metered(booked=1), 2, "-")
    groups = rerated(first, structs.replace(second, time=NOON + DAY)).groups
    booked = {name: {key: tally.all.booked_nanos for key, tally in group.items()} for name, group in groups.items()}
    assert booked == {
        "thread": {"t": 7, "-": 1},
        "key": {"k": 7, "": 1},
        "day": {"2026-11-21": 7, "2026-11-22": 1},
    }


def test_a_day_ends_at_midnight_utc() -> None:
    late = [structs.replace(recorded(metered(), n), time=NOON + DAY / 2 + n - 1.001) for n in (1, 2)]
    assert list(rerated(*late).groups["day"]) == ["2026-11-21", "2026-11-22"]


def test_what_is_shown_is_in_dollars_both_figures_and_what_is_between_them() -> None:
    told = shown(rerated(recorded(metered(booked=100), 1, "t"), recorded(orphan())), ("thread",))
    sums = {"events": 1, "booked_usd": "0.0000001", "rerated_usd": "0.00000004", "difference_usd": "-0.00000006"}
    none = {"events": 0, "booked_usd": "0", "rerated_usd": "0", "difference_usd": "0"}
    tokens = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 5, "reasoning_tokens": 0}
    tally = {**sums, "tokens": tokens, "estimated": none}
    assert told == {
        "total": tally,
        "by_thread": [{"thread": "t", **tally}],
        "orphans": {"events": 1, "booked_usd": "0.00000005"},
        "unknown": [],
    }


# -- over any history --------------------------------------------------------------------------------------------------

TOKENS = st.integers(0, 10**6)
USAGES = st.builds(Usage, input_tokens=TOKENS, cached_input_tokens=TOKENS, output_tokens=TOKENS)
NANOS = st.integers(0, 10**12)
RATES = st.builds(Rate, input_nanos=NANOS, cached_input_nanos=NANOS, output_nanos=NANOS, version=st.just("v"))
ENDINGS = st.builds(
    metered,
    st.sampled_from([UsageRecorded, Aborted]),
    NANOS,
    model=st.sampled_from(["m", "n"]),
    usage=USAGES,
    key=st.sampled_from(["", "a", "b"]),
    estimated=st.booleans(),
)
HISTORIES = st.lists(
    st.builds(
        lambda body, aggregate, hours: structs.replace(recorded(body, 1, aggregate), time=NOON + hours * 3600),
        ENDINGS | st.builds(orphan, st.sampled_from(["m", "n"])),
        st.sampled_from(["-", "t1", "t2"]),
        st.integers(0, 96),
    ),
    max_size=30,
)


@given(HISTORIES, RATES)
def test_every_attempt_is_in_the_total_once_and_once_in_each_grouping(history: list[RecordedEvent], rate: Rate) -> None:
    rerating = rerated(*history, rate=rate)
    ours = [e.body for e in history if isinstance(e.body, Metered) and e.body.model == "m"]
    assert rerating.total.all == Sums(
        events=len(ours),
        booked_nanos=sum(body.cost_nanos for body in ours),
        rerated_nanos=sum(cost_of(rate, body.usage) for body in ours),
    )
    assert rerating.total.estimated.events == sum(body.estimated for body in ours)
    assert rerating.orphans.events == sum(isinstance(e.body, Orphaned) and e.body.model == "m" for e in history)
    for grouping in GROUPINGS:
        assert sum(rerating.groups[grouping].values(), Tally()) == rerating.total


@given(HISTORIES, RATES)
def test_at_the_price_it_was_booked_at_there_is_no_difference(history: list[RecordedEvent], rate: Rate) -> None:
    booked = [
        structs.replace(event, body=structs.replace(event.body, cost_nanos=cost_of(rate, event.body.usage)))
        for event in history
        if isinstance(event.body, Metered)
    ]
    assert rerated(*booked, rate=rate).total.all.difference_nanos == 0


@given(HISTORIES, RATES, st.randoms())
def test_the_order_of_events_does_not_matter(history: list[RecordedEvent], rate: Rate, shuffle: Any) -> None:
    shuffled = shuffle.sample(history, len(history))
    assert shown(rerated(*shuffled, rate=rate)) == shown(rerated(*history, rate=rate))
