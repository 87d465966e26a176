"""How an attempt ends: given the books, when it ends, then exactly one event, or none where it had ended before."""

from collections.abc import Callable

import pytest
from given import NOON, a_rate
from trunkline_actors.endings import Attempt, Ending, Metering, failed, metered, orphaned
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.thread import Aborted, AttemptFailed, Books, OpenAttempt, Orphaned, UsageRecorded
from trunkline_events.usage import Usage

OTHER = {"r0-1": OpenAttempt(request_id="r0", reserve_nanos=7)}
BOOKS = Books(
    settled_nanos=100,
    reserved_nanos=57,
    limit_nanos=1000,
    config_seq=3,
    open={**OTHER, "r-1": OpenAttempt(request_id="r", reserve_nanos=50)},
)
ATTEMPT = Attempt(
    aggregate="t",
    request_id="r",
    attempt_id="r-1",
    attempt=1,
    model="m",
    provider="p",
    reserve_nanos=50,
    books=BOOKS,
)
USED = Usage(input_tokens=4, output_tokens=2)


def metering(
    usage: Usage | None = USED,
    *,
    bound: Usage = USED,
    aborted: bool = False,
    charged_nanos: int | None = None,
    version: str = "v9",
) -> Metering:
    return Metering(
        rate=a_rate(5, 10, version=version),
        usage=usage,
        charged_nanos=charged_nanos,
        bound=bound,
        latency_ms=20.5,
        ttft_ms=3.5,
        finish="stop",
        partial=aborted,
        aborted=aborted,
    )


def test_an_attempt_is_settled_at_what_it_used() -> None:
    event = metered(ATTEMPT, metering())(BOOKS, NOON)
    assert event == UsageRecorded(
        request_id="r",
        attempt_id="r-1",
        attempt=1,
        model="m",
        provider="p",
        usage=USED,
        cost_nanos=40,
        price_version="v9",
        latency_ms=20.5,
        ttft_ms=3.5,
        finish="stop",
        settled_nanos=140,
        reserved_nanos=7,
        limit_nanos=1000,
        config_seq=3,
        tokens=USED,
        open=OTHER,
    )


@pytest.mark.parametrize(
    ("version", "usage", "cost", "priced"),
    [
        ("v9", USED, 33, "upstream"),
        ("ceiling", USED, 33, "upstream"),
        ("model@7", USED, 40, "model@7"),  # a price that somebody set here
        ("v9", None, 40, "v9"),  # no usage, no charge
    ],
)
def test_what_the_provider_says_it_charged_is_taken_before_a_price_list(
    version: str, usage: Usage | None, cost: int, priced: str
) -> None:
    event = metered(ATTEMPT, metering(usage, charged_nanos=33, version=version))(BOOKS, NOON)
    assert isinstance(event, UsageRecorded)
    assert (event.cost_nanos, event.price_version, event.settled_nanos) == (cost, priced, 100 + cost)


def test_an_aborted_attempt_is_settled_too_under_its_own_name() -> None:
    event = metered(ATTEMPT, metering(aborted=True))(BOOKS, NOON)
    assert isinstance(event, Aborted)
    assert (event.cost_nanos, event.partial, event.estimated) == (40, True, False)


@pytest.mark.parametrize(("bound", "cost"), [(Usage(output_tokens=3), 30), (Usage(output_tokens=300), 50)])
def test_without_the_providers_numbers_a_bound_is_settled_up_to_the_reservation(bound: Usage, cost: int) -> None:
    event = metered(ATTEMPT, metering(None, bound=bound))(BOOKS, NOON)
    assert isinstance(event, UsageRecorded)
    assert (event.cost_nanos, event.usage, event.estimated) == (cost, bound, True)
    assert event.settled_nanos == 100 + cost


def test_the_providers_own_numbers_are_settled_even_beyond_the_reservation() -> None:
    event = metered(ATTEMPT, metering(Usage(output_tokens=300)))(BOOKS, NOON)
    assert isinstance(event, UsageRecorded)
    assert (event.cost_nanos, event.reserved_nanos) == (3000, 7)


def test_a_failed_attempt_costs_nothing_and_keeps_the_upstreams_words_out_of_the_log() -> None:
    failure = Failure(kind=FailureClass.RATE_LIMITED, message="your prompt was: secret", status=429)
    event = failed(ATTEMPT, failure, 12.5)(BOOKS, NOON)
    assert isinstance(event, AttemptFailed)
    assert (event.failure, event.status, event.latency_ms) == ("rate_limited", 429, 12.5)
    assert (event.settled_nanos, event.reserved_nanos, event.open) == (100, 7, OTHER)
    assert "secret" not in str(event)


def test_an_orphaned_attempt_is_settled_at_its_reservation() -> None:
    event = orphaned(ATTEMPT, NOON - 5)(BOOKS, NOON)
    assert isinstance(event, Orphaned)
    assert (event.cost_nanos, event.last_seen) == (50, NOON - 5)
    assert (event.settled_nanos, event.reserved_nanos, event.tokens) == (150, 7, Usage())


ENDINGS: list[Callable[[], Ending]] = [
    lambda: metered(ATTEMPT, metering()),
    lambda: metered(ATTEMPT, metering(aborted=True)),
    lambda: failed(ATTEMPT, Failure(kind=FailureClass.TIMEOUT, message="slow"), 1.0),
    lambda: orphaned(ATTEMPT, NOON),
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_attempt_that_has_ended_does_not_end_again(ending: Callable[[], Ending]) -> None:
    ended = Books(settled_nanos=100, reserved_nanos=7, open=OTHER)
    assert ending()(ended, NOON) is None
