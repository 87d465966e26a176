"""Circuit breakers as they stand, one a provider instance."""

from typing import Literal, assert_never

from msgspec import Struct, structs
from trunkline_events.circuit import CallFailed, CircuitFact, Closed, Opened, ProbeStarted, Recovered, Reset

State = Literal["closed", "open", "half-open"]


class Circuit(Struct, frozen=True, kw_only=True):
    """One breaker, after its event at `sequence`.

    `failures` counts in a row; times are Unix time; `probe_until` and `probe`, the attempt, are set while a probe runs.
    """

    state: State = "closed"
    failures: int = 0
    opened_at: float | None = None
    retry_at: float | None = None
    probe_until: float | None = None
    probe: str | None = None
    sequence: int = 0


CLOSED = Circuit()
CATEGORIES = ("circuit",)

Circuits = dict[str, Circuit]


def evolve(state: Circuits, fact: CircuitFact, sequence: int) -> Circuits:
    """The breakers after this event."""
    circuit = state.get(fact.provider, CLOSED)
    return {**state, fact.provider: structs.replace(_after(circuit, fact), sequence=sequence)}


def without(state: Circuits, provider: str) -> Circuits:
    """The breakers without that of a provider which is no more."""
    return {name: circuit for name, circuit in state.items() if name != provider} if provider in state else state


def _after(circuit: Circuit, fact: CircuitFact) -> Circuit:
    match fact:
        case CallFailed(failures=failures):
            return structs.replace(circuit, failures=failures)
        case Opened(failures=failures, opened_at=opened_at, retry_at=retry_at):
            return Circuit(state="open", failures=failures, opened_at=opened_at, retry_at=retry_at)
        case ProbeStarted(until=until, attempt_id=attempt_id):
            if circuit.state == "closed":  # the provider was removed meanwhile, and its id given to another
                return circuit
            return structs.replace(circuit, state="half-open", probe_until=until, probe=attempt_id)
        case Recovered() | Closed() | Reset():
            return CLOSED
        case _:  # pragma: no cover
            assert_never(fact)
