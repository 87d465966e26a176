"""Calls that have ended, for tests of what is counted of them."""

from typing import Any

from trunkline_actors.tallies import Tally
from trunkline_events.thread import Ending, UsageRecorded
from trunkline_events.usage import Usage

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
