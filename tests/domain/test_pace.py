"""When a group of appends goes out as one batch: costs that are measured, doubted after a while, and compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_events.pace import BELIEVED, FIRST_GUESS, STEADY, TRY_EVERY, Cost, Pace

times = st.floats(min_value=1e-6, max_value=10)


def a_pace(*, plain: float, batch: float) -> Pace:
    pace = Pace()
    pace.learn_plain(plain * STEADY, STEADY, 1.0)
    pace.batch.learn(batch, 1.0)
    return pace


def test_before_anything_was_measured_appends_go_one_by_one() -> None:
    assert not Pace().batch_pays(1_000_000, 1.0)


def test_one_append_is_never_a_batch() -> None:
    assert not a_pace(plain=10, batch=0.001).batch_pays(1, 1.0)


@pytest.mark.parametrize(("count", "pays"), [(10, False), (12, True), (500, True)])
def test_a_batch_pays_from_as_many_appends_as_take_longer_one_by_one(count: int, pays: bool) -> None:
    assert a_pace(plain=0.001, batch=0.011).batch_pays(count, 1.0) is pays


def test_until_a_batch_was_measured_it_is_guessed() -> None:
    pace = Pace()
    pace.learn_plain(FIRST_GUESS, STEADY, 1.0)
    assert not pace.batch_pays(STEADY, 1.0)
    assert pace.batch_pays(STEADY + 1, 1.0)


def test_an_append_alone_says_nothing_about_the_servers_pace() -> None:
    pace = Pace()
    pace.learn_plain(1.0, STEADY - 1, 1.0)
    assert pace.plain.at(1.0) == 0


def test_a_stall_is_not_taken_for_the_rule() -> None:
    cost = Cost(0.003)
    for second in range(20):
        cost.learn(0.010, float(second + 1))
    cost.learn(5.0, 21.0)
    assert cost.at(21.0) < 0.020


def test_what_was_not_used_for_long_is_tried_again() -> None:
    pace = a_pace(plain=0.0001, batch=0.100)
    assert not pace.batch_pays(500, 1.0)
    assert not pace.batch_pays(500, 1.0 + 0.9 * BELIEVED)
    later = 1.0 + 3 * BELIEVED
    assert not pace.batch_pays(500, later), "both are believed less dear: their ratio stays"
    for _ in range(5):
        pace.learn_plain(0.0001 * STEADY, STEADY, later)
    assert pace.batch_pays(500, later)


def test_a_close_call_goes_the_other_way_once_in_a_while() -> None:
    pace = a_pace(plain=0.001, batch=0.0095)
    assert [pace.chooses_batch(10, 1.0) for _ in range(TRY_EVERY)] == [True] * (TRY_EVERY - 1) + [False]
    pace = a_pace(plain=0.001, batch=0.0105)
    assert [pace.chooses_batch(10, 1.0) for _ in range(TRY_EVERY)] == [False] * (TRY_EVERY - 1) + [True]


def test_a_clear_call_is_never_tried_the_other_way() -> None:
    assert all(a_pace(plain=0.001, batch=0.002).chooses_batch(10, 1.0) for _ in range(2 * TRY_EVERY))
    assert not any(a_pace(plain=0.001, batch=0.030).chooses_batch(10, 1.0) for _ in range(2 * TRY_EVERY))


def test_one_append_is_never_tried_as_a_batch() -> None:
    pace = a_pace(plain=0.001, batch=0.001)
    assert not any(pace.chooses_batch(1, 1.0) for _ in range(2 * TRY_EVERY))


@given(st.lists(times, min_size=1, max_size=50))
def test_a_cost_stays_between_the_least_and_the_most_that_was_measured(measured: list[float]) -> None:
    cost = Cost(1.0)
    for one in measured:
        cost.learn(one, 1.0)
    assert min(measured) * 0.999 <= cost.at(1.0) <= max(measured) * 1.001


@given(times, times, st.integers(2, 1000), st.integers(2, 1000))
def test_if_it_pays_for_some_it_pays_for_more(plain: float, batch: float, count: int, other: int) -> None:
    pace = a_pace(plain=plain, batch=batch)
    fewer, more = sorted((count, other))
    assert pace.batch_pays(more, 1.0) >= pace.batch_pays(fewer, 1.0)
