"""The facts of a circuit breaker: one circuit per provider instance, shared by every replica through the log."""

from msgspec import Struct


class CircuitEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of a circuit carries: its provider instance."""

    provider: str


class CallFailed(CircuitEvent, frozen=True, kw_only=True, tag="circuit.call-failed.v1"):
    """A call failed in a way that counts; `failures` in a row with this one."""

    failure: str
    failures: int


class Recovered(CircuitEvent, frozen=True, kw_only=True, tag="circuit.recovered.v1"):
    """A call succeeded after failures that had not opened the circuit."""


class Opened(CircuitEvent, frozen=True, kw_only=True, tag="circuit.opened.v1"):
    """No calls until `retry_at` (Unix time), when one may probe."""

    failures: int
    opened_at: float
    retry_at: float


class ProbeStarted(CircuitEvent, frozen=True, kw_only=True, tag="circuit.probe-started.v1"):
    """One real request probes the instance, alone until `until` (Unix time)."""

    attempt_id: str
    until: float


class Closed(CircuitEvent, frozen=True, kw_only=True, tag="circuit.closed.v1"):
    """The probe succeeded: calls flow again."""


class Reset(CircuitEvent, frozen=True, kw_only=True, tag="circuit.reset.v1"):
    """Somebody closed the circuit by hand."""

    reason: str | None = None


CircuitFact = CallFailed | Recovered | Opened | ProbeStarted | Closed | Reset
