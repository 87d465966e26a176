"""Whatever an adapter hands over: what is settled can be read back, and gives nobody money."""

from typing import Any

import msgspec
import pytest
from given import NOON, a_rate
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.endings import Attempt, Metering, metered
from trunkline_actors.told import MOST_NANOS, MOST_TOKENS
from trunkline_events.codec import CODEC
from trunkline_events.thread import Books, OpenAttempt, UsageRecorded
from trunkline_events.usage import Usage

BOOKS = Books(settled_nanos=100, reserved_nanos=50, open={"r-1": OpenAttempt(request_id="r", reserve_nanos=50)})
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
ANYTHING = st.one_of(
    st.integers(),
    st.integers(min_value=0, max_value=2 * MOST_TOKENS),
    st.sampled_from([2**53, 2**63, 2**64, MOST_NANOS + 1]),
    st.floats(),
    st.text(),
    st.booleans(),
    st.none(),
    st.binary(),
    st.lists(st.integers(), max_size=2),
)
FIELDS = dict.fromkeys(Usage.__struct_fields__, ANYTHING)
USAGES = st.one_of(ANYTHING, st.builds(Usage, **FIELDS))


def settle(usage: Any, charged: Any = None, finish: Any = "stop", sent: int = 0, tokens: int = 1) -> UsageRecorded:
    metering = Metering(
        rate=a_rate(tokens, tokens),
        usage=usage,
        charged_nanos=charged,
        bound=Usage(input_tokens=3, output_tokens=sent),
        latency_ms=1.0,
        ttft_ms=1.0,
        finish=finish,
    )
    event = metered(ATTEMPT, metering)(BOOKS, NOON)
    assert isinstance(event, UsageRecorded)
    return event


@given(USAGES, ANYTHING, ANYTHING, st.integers(), st.integers(0, 9 * 10**12))
def test_a_settlement_can_be_read_back_and_refunds_nothing(
    usage: Any, charged: Any, finish: Any, sent: int, price: int
) -> None:
    event = settle(usage, charged, finish, sent, price)
    assert CODEC.decode(None, CODEC.encode(event)) == event
    assert type(event.cost_nanos) is int
    assert event.settled_nanos == 100 + event.cost_nanos >= 100
    assert not event.estimated or event.cost_nanos <= ATTEMPT.reserve_nanos
    assert min(msgspec.structs.astuple(event.usage)) >= 0


@pytest.mark.parametrize("count", [-1, MOST_TOKENS + 1, 2**64, 1.0, "7", None, True])
@pytest.mark.parametrize("field", Usage.__struct_fields__)
def test_usage_that_cannot_be_counts_as_not_told(field: str, count: Any) -> None:
    event = settle(Usage(**{field: count}), sent=2)
    assert (event.usage, event.cost_nanos, event.estimated) == (Usage(input_tokens=3, output_tokens=2), 5, True)


@pytest.mark.parametrize("charged", [-1, 0.5, "7", True, MOST_NANOS + 1])
def test_a_charge_that_cannot_be_counts_as_not_told(charged: Any) -> None:
    event = settle(Usage(input_tokens=4), charged)
    assert (event.cost_nanos, event.price_version, event.estimated) == (4, "v", False)


def test_usage_that_would_cost_more_than_anything_does_counts_as_not_told() -> None:
    assert settle(Usage(output_tokens=MOST_TOKENS), tokens=1001).estimated
    assert settle(Usage(output_tokens=MOST_TOKENS), tokens=1000).cost_nanos == MOST_NANOS


@pytest.mark.parametrize("finish", ["sk-live-0123456789", "STOP", "", "x" * 3_000_000, "\0", "é", 3, None, []])
def test_a_reason_to_finish_that_nobody_knows_is_stop(finish: Any) -> None:
    assert settle(None, finish=finish).finish == "stop"


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter", "error", "abandoned"])
def test_a_known_reason_to_finish_is_kept(finish: str) -> None:
    assert settle(None, finish=finish).finish == finish
