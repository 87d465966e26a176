"""Why a request was served as it was: the state it was decided from, who else was considered, how it went, the cost.

Pure: the events of one request in, what a reader or a program wants to know out.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_events.envelope import RecordedEvent
from trunkline_events.money import usd_from_nanos
from trunkline_events.rate import Rate
from trunkline_events.thread import (
    AnswerReused,
    AttemptFailed,
    Books,
    Candidate,
    Ending,
    Metered,
    RequestRefused,
    RouteDecided,
)
from trunkline_events.times import format_time
from trunkline_events.usage import Usage
from trunkline_projections.folds import Gateway

from trunkline_actors.endings import cost_of as cost_of_ending
from trunkline_actors.pricing import cost_of
from trunkline_actors.redeciding import UNKNOWN, Recorded, again, differences, rates_of


class Attempted(Struct, frozen=True, kw_only=True):
    """One attempt of a request: its decision, what that was made from, and how it ended, where it has."""

    decided: RecordedEvent
    books: Books
    gateway: Gateway
    ended: RecordedEvent | None = None

    @property
    def decision(self) -> RouteDecided:
        """The decision itself."""
        assert isinstance(self.decided.body, RouteDecided)
        return self.decided.body

    def recorded(self) -> Recorded:
        """What it takes to make the decision again."""
        thread = self.decided.aggregate
        return Recorded(thread=thread, decision=self.decision, books=self.books, gateway=self.gateway)


def explain(
    attempts: list[Attempted], refused: RecordedEvent | None, reused: RecordedEvent | None = None
) -> dict[str, Any]:
    """All there is to say about a request. Money in US dollars as text, times in RFC 3339.

    `would_have_cost_usd` is what each candidate would have cost for the tokens that were used in the end, at the prices
    of that time; null where no tokens are known, or no price is. `again` lists what comes out differently when the
    decision is made again from the log: nothing, if the log is whole.
    """
    first = attempts[0].decided if attempts else refused or reused
    assert first is not None, "a request has an event"
    body = first.body
    assert isinstance(body, RouteDecided | RequestRefused | AnswerReused)
    usage = _usage_of(attempts)
    return {
        "request_id": body.request_id,
        "thread": first.aggregate,
        "key": body.key or None,
        "asked": msgspec.to_builtins(body.asked),
        "attempts": [_attempt(one, usage) for one in attempts],
        "refused": _refused(refused),
        "reused": _reused(reused),
        "cost_usd": usd_from_nanos(sum(cost_of_ending(body) for body in _endings(attempts))),
    }


def _endings(attempts: list[Attempted]) -> list[Ending]:
    bodies = [one.ended.body for one in attempts if one.ended is not None]
    return [body for body in bodies if isinstance(body, Ending)]


def _usage_of(attempts: list[Attempted]) -> Usage | None:
    """The tokens that were used in the end, where somebody counted them."""
    return next((body.usage for body in reversed(_endings(attempts)) if isinstance(body, Metered)), None)


def _attempt(attempted: Attempted, usage: Usage | None) -> dict[str, Any]:
    decision, gateway = attempted.decision, attempted.gateway
    rates = rates_of(decision, gateway.registry)
    return {
        "attempt": decision.attempt,
        "attempt_id": decision.attempt_id,
        "seq": attempted.decided.sequence,
        "at": format_time(decision.now),
        "by": attempted.decided.actor,
        "model": decision.model,
        "version": decision.version,
        "provider": decision.provider,
        "state": _state(attempted),
        "candidates": [_candidate(one, decision, rates, usage) for one in decision.candidates],
        "left_out": decision.left_out,
        "reserved_usd": usd_from_nanos(decision.reserve_nanos),
        "max_tokens": decision.max_tokens,
        "input_bound": decision.input_bound,
        "price_version": decision.price_version,
        "ended": _ended(attempted.ended),
        "again": differences(decision, again(attempted.recorded())),
    }


def _state(attempted: Attempted) -> dict[str, Any]:
    """What the decision was made from."""
    decision, books, basis = attempted.decision, attempted.books, attempted.decision.basis
    circuits = attempted.gateway.circuits
    return {
        "log_seq": decision.log_seq,
        "policy_version": decision.policy_version,
        "rule": decision.rule,
        "override": decision.override,
        "preferences": decision.preferences,
        "thread_model": basis.default_model,
        "tried": [
            {"model": model, "failure": failure}
            for model, failure in zip(decision.tried, [*basis.failures, *[None] * len(decision.tried)], strict=False)
        ],
        "circuits": {name: one.state for name, one in sorted(circuits.items()) if one.state != "closed"},
        "statistics": not basis.blind,
        "budget": {
            "limit_usd": None if books.limit_nanos is None else usd_from_nanos(books.limit_nanos),
            "settled_usd": usd_from_nanos(books.settled_nanos),
            "reserved_usd": usd_from_nanos(books.reserved_nanos),
        },
        "budgets": {one.scope: {"free_usd": usd_from_nanos(one.free_nanos)} for one in basis.funds},
        "draw": decision.draw,
    }


def _candidate(
    one: Candidate, decision: RouteDecided, rates: Mapping[str, Rate], usage: Usage | None
) -> dict[str, Any]:
    chosen = one.model == decision.model
    rate = rates.get(f"{one.model}@{decision.version}" if chosen else one.model) or rates.get(one.model)
    known = usage is not None and rate is not None and rate is not UNKNOWN
    measured = decision.stats.get(one.model)
    return {
        "model": one.model,
        "provider": one.provider,
        "score": one.score,
        "reason": one.reason,
        "chosen": chosen,
        "statistics": None if measured is None else msgspec.to_builtins(measured),
        "would_have_cost_usd": usd_from_nanos(cost_of(rate, usage)) if known and rate and usage else None,
    }


def _ended(event: RecordedEvent | None) -> dict[str, Any] | None:
    if event is None:
        return None
    body = event.body
    assert isinstance(body, Ending)
    told: dict[str, Any] = {"type": event.type, "seq": event.sequence, "at": format_time(event.time)}
    told["cost_usd"] = usd_from_nanos(cost_of_ending(body))
    if isinstance(body, Metered):
        told["usage"] = msgspec.to_builtins(body.usage)
        for name in ("latency_ms", "ttft_ms", "finish", "partial", "estimated"):
            told[name] = getattr(body, name)
    elif isinstance(body, AttemptFailed):
        told |= {"failure": body.failure, "status": body.status, "latency_ms": body.latency_ms}
    return told


def _reused(event: RecordedEvent | None) -> dict[str, Any] | None:
    if event is None:
        return None
    body = event.body
    assert isinstance(body, AnswerReused)
    return {
        "seq": event.sequence,
        "at": format_time(event.time),
        "model": body.model,
        "version": body.version,
        "provider": body.provider,
        "origin": body.origin,
        "age_s": body.age_s,
        "saved_usd": usd_from_nanos(body.saved_nanos),
    }


def _refused(event: RecordedEvent | None) -> dict[str, Any] | None:
    if event is None:
        return None
    body = event.body
    assert isinstance(body, RequestRefused)
    return {
        "seq": event.sequence,
        "at": format_time(event.time),
        "code": body.code,
        "message": body.message,
        "needed_usd": usd_from_nanos(body.needed_nanos),
        "budget": body.budget,
    }
