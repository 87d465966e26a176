"""How an attempt ends: exactly once, whoever ends it. Pure; ending an attempt that is not open is a no-op."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct, field
from trunkline_events.envelope import Event
from trunkline_events.failure import Failure
from trunkline_events.rate import Rate
from trunkline_events.thread import Aborted, AttemptFailed, Books, Metered, Orphaned, RouteDecided, UsageRecorded
from trunkline_events.thread import Ending as EndingEvent
from trunkline_events.usage import Usage
from trunkline_projections.threads import books_of

from trunkline_actors import money, pricing
from trunkline_actors.told import bounded, charge_told, finish_told, usage_told


class Attempt(Struct, frozen=True, kw_only=True):
    """An attempt that is to end. `books` are the thread's after its reservation."""

    aggregate: str
    request_id: str
    attempt_id: str
    attempt: int
    model: str
    provider: str
    reserve_nanos: int
    books: Books
    key: str = ""
    slices: dict[str, str] = field(default_factory=dict)
    traceparent: str | None = None

    def named(self) -> dict[str, Any]:
        """What every ending of it carries beside the books, as keyword arguments."""
        return {
            "request_id": self.request_id,
            "attempt_id": self.attempt_id,
            "attempt": self.attempt,
            "model": self.model,
            "provider": self.provider,
            "key": self.key,
            "slices": self.slices,
        }


def of_decision(aggregate: str, decision: RouteDecided, traceparent: str | None = None) -> Attempt:
    """The attempt that a decision began, for those who know it from the log and did not run it."""
    return Attempt(
        aggregate=aggregate,
        request_id=decision.request_id,
        attempt_id=decision.attempt_id,
        attempt=decision.attempt,
        model=decision.model,
        provider=decision.provider,
        reserve_nanos=decision.reserve_nanos,
        books=books_of(decision, 0),
        key=decision.key,
        slices=decision.slices,
        traceparent=traceparent,
    )


UPSTREAM = "upstream"
"""The version of the price where the provider itself said what it charged."""


class Metering(Struct, frozen=True, kw_only=True):
    """What an attempt used. `usage` None: the provider sent none, so `bound` is settled, up to the reservation.

    `usage`, `charged_nanos` and `finish` are as an adapter gave them: what makes no sense counts as not told.
    `charged_nanos` is what the provider says it charged: taken where our rate is of a price list or a guess, since that
    provider's prices vary, and not where somebody set the price here.
    """

    rate: Rate
    usage: Usage | None
    charged_nanos: int | None = None
    bound: Usage
    latency_ms: float
    ttft_ms: float | None
    finish: str
    partial: bool = False
    aborted: bool = False


Ending = Callable[[Books, float], Event | None]
"""Decides how an attempt ends, by the books of its thread and the time."""


def cost_of(ending: EndingEvent) -> int:
    """What an attempt that ended so cost, in nano-dollars."""
    return ending.cost_nanos if isinstance(ending, Metered | Orphaned) else 0


def metered(attempt: Attempt, metering: Metering) -> Ending:
    """The attempt is settled at what it used."""
    told, version = usage_told(metering.usage), metering.rate.version
    priced = None if told is None else charge_told(pricing.cost_of(metering.rate, told))
    if told is None or priced is None:
        usage, estimated = bounded(metering.bound), True
        cost = min(pricing.cost_of(metering.rate, usage), attempt.reserve_nanos)
    else:
        usage, cost, estimated = told, priced, False
        charged = charge_told(metering.charged_nanos)
        if charged is not None and not pricing.is_in_log(metering.rate):
            cost, version = charged, UPSTREAM
    kind = Aborted if metering.aborted else UsageRecorded

    def decide(books: Books, now: float) -> Event | None:
        after = money.close(books, attempt.attempt_id, cost, usage, now)
        return after and kind(
            **attempt.named(),
            usage=usage,
            cost_nanos=cost,
            price_version=version,
            latency_ms=metering.latency_ms,
            ttft_ms=metering.ttft_ms,
            finish=finish_told(metering.finish),
            partial=metering.partial,
            estimated=estimated,
            **money.fields(after),
        )

    return decide


def failed(attempt: Attempt, failure: Failure, latency_ms: float) -> Ending:
    """The attempt failed before anything was generated; its reservation is released."""

    def decide(books: Books, now: float) -> Event | None:
        after = money.close(books, attempt.attempt_id, 0, Usage(), now)
        return after and AttemptFailed(
            **attempt.named(),
            failure=failure.kind.value,
            status=failure.status,
            latency_ms=latency_ms,
            **money.fields(after),
        )

    return decide


def orphaned(attempt: Attempt, last_seen: float) -> Ending:
    """Nobody knows what became of the attempt: it is settled at its reservation."""

    def decide(books: Books, now: float) -> Event | None:
        after = money.close(books, attempt.attempt_id, attempt.reserve_nanos, Usage(), now)
        return after and Orphaned(
            **attempt.named(),
            cost_nanos=attempt.reserve_nanos,
            last_seen=last_seen,
            **money.fields(after),
        )

    return decide
