"""Percentiles from a histogram: as near as promised, and the same however the values were divided."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors import sketch
from trunkline_actors.sketch import ERROR, LEAST, MOST, Sketch

VALUES = st.lists(st.floats(LEAST, MOST), min_size=1, max_size=200)
ROUNDING = 1e-9
"""What the logarithm of a float may be off."""


def of(values: list[float]) -> Sketch:
    counted: Sketch = {}
    for value in values:
        sketch.add(counted, value)
    return counted


@given(VALUES, st.floats(0, 1))
def test_a_percentile_is_within_five_percent_of_the_true_one(values: list[float], share: float) -> None:
    (found,) = sketch.quantiles(of(values), share)
    true = sorted(values)[math.floor(share * (len(values) - 1))]
    assert found is not None
    assert abs(found - true) <= true * (ERROR + ROUNDING)


@given(VALUES)
def test_percentiles_asked_for_together_are_those_asked_for_alone(values: list[float]) -> None:
    counted, shares = of(values), (0.0, 0.5, 0.5, 0.95, 1.0)
    assert sketch.quantiles(counted, *shares) == [sketch.quantiles(counted, share)[0] for share in shares]


@given(VALUES, VALUES)
def test_merging_is_counting_all_values_in_one(first: list[float], second: list[float]) -> None:
    merged = of(first)
    sketch.merge(merged, of(second))
    assert merged == of(first + second)


@given(VALUES, VALUES)
def test_what_was_merged_can_be_taken_out_again(first: list[float], second: list[float]) -> None:
    merged = of(first + second)
    sketch.unmerge(merged, of(second))
    assert merged == of(first)


@given(VALUES)
def test_a_sketch_survives_json(values: list[float]) -> None:
    counted = of(values)
    assert msgspec.json.decode(msgspec.json.encode(counted), type=Sketch) == counted


@given(st.lists(st.floats(0, allow_nan=False)))
def test_a_sketch_has_a_bounded_size_whatever_is_counted(values: list[float]) -> None:
    assert all(sketch.FIRST <= index <= sketch.LAST for index in of(values))
    assert sketch.LAST - sketch.FIRST < 278


def test_what_is_too_small_or_too_large_counts_as_the_least_or_the_most() -> None:
    assert sketch.quantiles(of([0.0]), 0.5) == sketch.quantiles(of([LEAST]), 0.5)
    assert sketch.quantiles(of([1e300]), 0.5) == sketch.quantiles(of([MOST]), 0.5)


@pytest.mark.parametrize("index", [-(10**9), 10**9])
def test_a_bucket_that_nobody_of_ours_made_has_a_value_all_the_same(index: int) -> None:
    assert LEAST * 0.9 < sketch.value_of(index) < MOST * 1.1


def test_of_nothing_there_is_no_percentile() -> None:
    assert sketch.quantiles({}, 0.5, 0.95) == [None, None]
