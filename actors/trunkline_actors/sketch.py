"""Percentiles of what can't all be kept: a histogram whose buckets grow, which merges and unmerges exactly. Pure.

This is DDSketch (Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 2019, https://arxiv.org/abs/1908.10693, section 2). With the relative error a and
gamma = (1 + a) / (1 - a), a value x counts in bucket ceil(log_gamma(x)), and bucket i stands for
2 gamma^i / (gamma + 1), which is at most the share a away from all that is in it.
"""

import math

Sketch = dict[int, int]
"""How many values lie in each bucket, by its index; as JSON `{"43": 2}`. No bucket is empty."""

ERROR = 0.05
"""The relative error of a percentile, at most."""
GAMMA = (1 + ERROR) / (1 - ERROR)
LEAST, MOST = 0.001, 1e9
"""What is smaller or larger counts as this, so that there are at most 278 buckets, whatever comes."""

_SCALE = 1 / math.log(GAMMA)
_log, _ceil = math.log, math.ceil


def index_of(value: float) -> int:
    """The bucket of a value."""
    if LEAST <= value <= MOST:
        return _ceil(_log(value) * _SCALE)
    return FIRST if value < LEAST else LAST


FIRST, LAST = index_of(LEAST), index_of(MOST)


def value_of(index: int) -> float:
    """What a bucket stands for."""
    return float(2 * GAMMA ** min(max(index, FIRST), LAST) / (GAMMA + 1))


def add(sketch: Sketch, value: float) -> None:
    """Count one value."""
    index = index_of(value)
    sketch[index] = sketch.get(index, 0) + 1


def merge(sketch: Sketch, other: Sketch) -> None:
    """Count all that another one counted: the same as if it had been added here."""
    for index, count in other.items():
        sketch[index] = sketch.get(index, 0) + count


def unmerge(sketch: Sketch, other: Sketch) -> None:
    """Forget what was merged before."""
    for index, count in other.items():
        left = sketch.get(index, 0) - count
        if left > 0:
            sketch[index] = left
        else:
            sketch.pop(index, None)


def quantiles(sketch: Sketch, *shares: float) -> list[float | None]:
    """The values at these shares of the whole (ascending, 0 to 1), each None where there are none at all.

    Of n values in order, the one at share q is that with number floor(q (n - 1)), counted from 0.
    """
    last = sum(sketch.values()) - 1
    found: list[float | None] = []
    passed, ordered = 0, iter(sorted(sketch.items()))
    index = FIRST
    for share in shares:
        while passed <= math.floor(share * last):
            index, count = next(ordered)
            passed += count
        found.append(value_of(index) if last >= 0 else None)
    return found
