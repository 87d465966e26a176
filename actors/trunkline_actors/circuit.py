"""Decisions of a circuit breaker: what calls mean for it, who may probe, and what a probe's end settles. Pure."""

from msgspec import Struct, structs
from trunkline_events.circuit import CallFailed, Closed, Opened, ProbeStarted, Recovered, Reset
from trunkline_events.failure import FailureClass, trips_breaker
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_events.times import format_time
from trunkline_projections.circuits import Circuit

OPEN = "its circuit is open"
PROBED = "its circuit is being probed"

PROBE_GRACE = 5.0
"""Seconds that a probe has beyond what its call can last: for it to begin, and for its end to be told."""

_ANSWERED = frozenset(
    {
        FailureClass.RATE_LIMITED,
        FailureClass.AUTH,
        FailureClass.INVALID_REQUEST,
        FailureClass.CONTEXT_LENGTH,
        FailureClass.CONTENT_FILTER,
        FailureClass.MODEL_NOT_FOUND,
    }
)
"""Failures by which a provider shows that it answers."""


class Tally(Struct, frozen=True, kw_only=True):
    """What ended since the circuit was last written of, in order, as far as it matters.

    `first` failures came before any success; `longest` is the longest run of them after one; `run` is the run that
    lasts, and `healed` says whether there was a success at all. `failure` is the class of the last failure.
    """

    first: int = 0
    longest: int = 0
    run: int = 0
    healed: bool = False
    failure: str = ""


NOTHING = Tally()


def tallied(tally: Tally, failure: FailureClass | None) -> Tally:
    """The tally with one more end: a success where `failure` is None; a failure that doesn't count changes nothing."""
    if failure is None:
        return structs.replace(tally, healed=True, run=0)
    if not trips_breaker(failure):
        return tally
    run = tally.run + 1
    if tally.healed:
        return structs.replace(tally, run=run, longest=max(tally.longest, run), failure=failure.value)
    return structs.replace(tally, run=run, first=run, failure=failure.value)


def matters(circuit: Circuit, failure: FailureClass | None, *, pending: bool) -> bool:
    """Whether the end of a call that is no probe is worth tallying; `pending`: others are tallied and not written yet.

    It isn't while the circuit is open, and neither is one success of many.
    """
    if circuit.state != "closed":
        return False
    if failure is None:
        return pending or circuit.failures > 0
    return trips_breaker(failure)


def called(circuit: Circuit, tally: Tally, provider: Provider, now: float) -> CallFailed | Opened | Recovered | None:
    """What a tally of ended calls comes to: one event, or none where nothing changes.

    While the circuit is open these calls began before it was, and change nothing.
    """
    if circuit.state != "closed":
        return None
    worst = max(circuit.failures + tally.first if tally.first else 0, tally.longest)
    if worst >= provider.breaker_failures:
        return _opened(provider, worst, now)
    failures = tally.run if tally.healed else circuit.failures + tally.run
    if failures == circuit.failures:
        return None
    if not failures:
        return Recovered(provider=provider.id)
    return CallFailed(provider=provider.id, failure=tally.failure, failures=failures)


def offers(circuit: Circuit | None, now: float) -> str | None:
    """Why the provider may not be called, in words that count well; None where it may, or may be probed."""
    if circuit is None or circuit.state == "closed":
        return None
    if circuit.state == "open":
        return OPEN if now < (circuit.retry_at or 0.0) else None
    return PROBED if now < (circuit.probe_until or 0.0) else None


def probe(
    circuit: Circuit, provider: Provider, attempt_id: str, deadline: float, now: float
) -> ProbeStarted | Refused | None:
    """Whether this attempt may call while the circuit is open: as its one probe. None where the circuit is closed."""
    if circuit.state == "closed":
        return None
    if circuit.probe == attempt_id:  # it was appended before, and its answer got lost
        return ProbeStarted(provider=provider.id, attempt_id=attempt_id, until=circuit.probe_until or 0.0)
    if offers(circuit, now) is not None:
        return Refused(code="unavailable", message=kept_out(circuit, provider.id))
    if now >= deadline:  # its call would last no time and say nothing of the provider
        return Refused(code="unavailable", message=f"no time is left to probe the open circuit of {provider.id!r}")
    until = min(now + provider.timeout_s, deadline) + PROBE_GRACE
    return ProbeStarted(provider=provider.id, attempt_id=attempt_id, until=until)


def kept_out(circuit: Circuit, provider: str) -> str:
    """Why a call was not made, and what to do."""
    if circuit.state == "half-open":
        return f"the circuit of {provider!r} is open, and one request probes it now; try again in a moment"
    at = "its retry time" if circuit.retry_at is None else format_time(circuit.retry_at)
    return (
        f"the circuit of {provider!r} is open until {at} after {circuit.failures} failures in a row; "
        f"`trunkline circuits reset` closes it at once"
    )


def probed(
    circuit: Circuit, provider: Provider, attempt_id: str, failure: FailureClass | None, now: float
) -> Closed | Opened | None:
    """What the end of a probe settles; None where this is not the probe any more.

    One that was cut short says nothing of the provider: another may probe at once.
    """
    if circuit.state != "half-open" or circuit.probe != attempt_id:
        return None
    if failure is None or failure in _ANSWERED:
        return Closed(provider=provider.id)
    if failure is FailureClass.ABORTED:
        opened = circuit.opened_at if circuit.opened_at is not None else now
        return Opened(provider=provider.id, failures=circuit.failures, opened_at=opened, retry_at=now)
    return _opened(provider, circuit.failures + 1, now)


def reset(circuit: Circuit, provider: str, reason: str | None) -> Reset | None:
    """Close a circuit by hand; None where it is closed."""
    return None if circuit.state == "closed" else Reset(provider=provider, reason=reason)


def _opened(provider: Provider, failures: int, now: float) -> Opened:
    return Opened(provider=provider.id, failures=failures, opened_at=now, retry_at=now + provider.breaker_open_s)
