"""Limits by the minute, shared by several processes."""

from given import NOON
from hypothesis import given as for_any
from hypothesis import strategies as st
from trunkline_actors import keys_rates
from trunkline_actors.keys_rates import LEASE, PERIOD, Bucket, Buckets, Standing

steps = st.lists(
    st.tuples(
        st.floats(min_value=0, max_value=20),  # seconds until the next thing happens
        st.integers(min_value=0, max_value=2),  # the process it happens in
        st.integers(min_value=1, max_value=40),  # how many requests come at once
        st.integers(min_value=0, max_value=60),  # how many more the process would like to have at hand
    ),
    max_size=60,
)


@for_any(limit=st.integers(min_value=1, max_value=100), happens=steps)
def test_in_no_minute_do_more_get_through_than_the_limit_and_one_burst(
    limit: int, happens: list[tuple[float, int, int, int]]
) -> None:
    bucket: Bucket | None = None
    shares = dict.fromkeys(range(3), (0, 0.0))
    now, passed = NOON, []
    for pause, process, requests, wanted in happens:
        now += pause
        for _ in range(requests):
            left, until = shares[process]
            if left < 1 or now >= until:
                taken, bucket = keys_rates.take(bucket, limit, 1, wanted, now)
                left, until = taken, now + LEASE
            if left:
                passed.append(now)
                left -= 1
            shares[process] = (left, until)
    for start in passed:
        assert sum(start <= moment < start + 60 for moment in passed) <= 2 * limit


def test_a_whole_burst_is_there_at_once_and_then_one_at_a_time() -> None:
    bucket = None
    for _ in range(5):
        taken, bucket = keys_rates.take(bucket, 5, 1, 0, NOON)
        assert taken == 1
    assert keys_rates.take(bucket, 5, 1, 0, NOON)[0] == 0
    wait = keys_rates.wait_for(bucket, 5, 1, NOON)
    assert wait == PERIOD / 5
    assert keys_rates.take(bucket, 5, 1, 0, NOON + wait - 0.01)[0] == 0
    assert keys_rates.take(bucket, 5, 1, 0, NOON + wait + 0.01)[0] == 1


def test_what_is_taken_in_advance_leaves_half_for_the_others() -> None:
    assert keys_rates.take(None, 100, 1, 1000, NOON)[0] == 50
    assert keys_rates.take(Bucket(level=50, at=NOON), 100, 1, 1000, NOON)[0] == 1


def test_a_clock_that_is_behind_fills_nothing() -> None:
    bucket = Bucket(level=0, at=NOON + 10)
    assert keys_rates.level(bucket, 60, NOON) == 0
    assert keys_rates.take(bucket, 60, 1, 0, NOON)[1].at == NOON + 10
    assert keys_rates.wait_for(bucket, 61, 1, NOON) == 11


def test_a_limit_that_was_lowered_holds_at_once() -> None:
    assert keys_rates.level(Bucket(level=100, at=NOON), 10, NOON) == 10


def test_how_a_limit_stands_is_told_and_read_back() -> None:
    stands = keys_rates.standing(Bucket(level=28, at=NOON), 61, 2, NOON)
    assert stands == Standing(limit=61, remaining=30, reset_s=31.0)
    assert keys_rates.untold(keys_rates.told({"requests": stands, "tokens": stands})) == {
        "requests": stands,
        "tokens": stands,
    }
    assert keys_rates.untold("") == keys_rates.untold("requests=a/b/c") == keys_rates.untold("x") == {}


def test_what_was_kept_is_read_back_and_what_is_no_bucket_is_full() -> None:
    kept = Buckets(requests=Bucket(level=1.5, at=NOON))
    assert keys_rates.read(keys_rates.encode(kept)) == kept
    for data in (None, b"", b"\xff", b"junk"):
        assert keys_rates.read(data) == Buckets()
