"""A circuit shared by processes that see each other's work late: never two probes, never a call while it is open."""

from typing import NamedTuple

from given import NOON, a_provider
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trunkline_actors.circuit import NOTHING, Tally, called, matters, probe, probed, reset, tallied
from trunkline_events.circuit import CallFailed, CircuitFact, Closed, Opened, ProbeStarted, Recovered
from trunkline_events.failure import FailureClass, trips_breaker
from trunkline_events.refusal import Refused
from trunkline_projections.circuits import CLOSED, Circuit, Circuits, evolve, without

PROVIDER = a_provider(breaker_failures=2, breaker_open_s=30.0, timeout_s=20.0)
REPLICAS = range(4)
PICK = st.integers(0, 20)
RARELY = st.integers(0, 7)
OUTCOMES = st.sampled_from(
    [
        *(None, None, *[FailureClass.UNAVAILABLE] * 4, FailureClass.TIMEOUT, FailureClass.CONNECTION),
        *(FailureClass.RATE_LIMITED, FailureClass.ABORTED, FailureClass.INTERNAL),
    ]
)


class Op(NamedTuple):
    """What a process is about to append, decided from what it had read. `tally` of calls, or of one `attempt`."""

    replica: int
    expected: int
    attempt: str = ""
    deadline: float = 0.0
    tally: Tally | None = None
    outcomes: tuple[FailureClass | None, ...] = ()
    ends: bool = False
    outcome: FailureClass | None = None


class Call(NamedTuple):
    """A call upstream."""

    replica: int
    attempt: str
    probes: bool


class Breakers(RuleBasedStateMachine):
    """The log is a list: circuit facts, and None where the provider was removed and registered again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.log: list[tuple[float, CircuitFact | None]] = []
        self.seen = dict.fromkeys(REPLICAS, 0)
        self.tallies = dict.fromkeys(REPLICAS, NOTHING)
        self.outcomes: dict[int, list[FailureClass | None]] = {replica: [] for replica in REPLICAS}
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.attempts = 0
        self.failures = 0
        """In a row, each end counted by itself in the order in which the log got them."""

    @initialize(failed_once=st.booleans())
    def begins_where_it_is_time_to_probe(self, failed_once: bool) -> None:
        if failed_once:
            self.append(Opened(provider="p", failures=2, opened_at=NOON - 30, retry_at=NOON))
            self.seen = dict.fromkeys(REPLICAS, 1)

    # -- the log, and how far a process has read it

    def circuit(self, position: int | None = None) -> Circuit:
        state: Circuits = {}
        for sequence, (_, fact) in enumerate(self.log[:position], 1):
            state = without(state, "p") if fact is None else evolve(state, fact, sequence)
        return state.get("p", CLOSED)

    def last(self) -> int:
        return max((number for number, (_, fact) in enumerate(self.log, 1) if fact is not None), default=0)

    def view(self, replica: int) -> Circuit:
        return self.circuit(self.seen[replica])

    @rule(replica=st.sampled_from(REPLICAS), events=st.sampled_from([1, 2, 99]))
    def reads_on(self, replica: int, events: int) -> None:
        self.seen[replica] = min(len(self.log), self.seen[replica] + events)

    @rule(seconds=st.sampled_from([0.5, 5.0, 25.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # -- calls

    @rule(
        replica=st.sampled_from(REPLICAS),
        deadline=st.sampled_from([2.0, 60.0]),
        outcomes=st.lists(OUTCOMES, max_size=3),
        go_on=st.integers(0, 1),
    )
    def calls_arrive(self, replica: int, deadline: float, outcomes: list[FailureClass | None], go_on: int) -> None:
        """Some end at once, and some go on."""
        for _ in range(len(outcomes) + go_on):
            self.a_call_arrives(replica, deadline)
        for outcome in outcomes:
            if self.calls:
                self.a_call_ends(-1, outcome)

    def a_call_arrives(self, replica: int, deadline: float) -> None:
        circuit = self.view(replica)
        self.attempts += 1
        attempt = f"r-{self.attempts}"
        if circuit.state == "closed":
            facts = [fact for _, fact in self.log[: self.seen[replica]] if not isinstance(fact, CallFailed | Recovered)]
            assert not facts or not isinstance(facts[-1], Opened), "nobody calls while it is open"
            self.calls.append(Call(replica, attempt, probes=False))
        else:  # also where it is not time yet: what lands later was decided then
            self.ops.append(Op(replica, circuit.sequence, attempt, self.now + deadline))

    @precondition(lambda self: self.calls)
    @rule(pick=PICK, outcome=OUTCOMES)
    def a_call_ends(self, pick: int, outcome: FailureClass | None) -> None:
        call = self.calls.pop(pick % len(self.calls))
        circuit = self.view(call.replica)
        if call.probes:  # who appended its start knows of it, however far it has read
            self.ops.append(Op(call.replica, circuit.sequence, call.attempt, ends=True, outcome=outcome))
            return
        busy = any(op.replica == call.replica and op.tally for op in self.ops)
        tally = self.tallies[call.replica]
        if matters(circuit, outcome, pending=busy or tally is not NOTHING):
            self.tallies[call.replica] = tallied(tally, outcome)
            self.outcomes[call.replica].append(outcome)
            self.write(call.replica)

    def write(self, replica: int) -> None:
        """As a breaker does: one append at a time, of what ended since the last one."""
        if self.tallies[replica] is NOTHING or any(op.replica == replica and op.tally for op in self.ops):
            return
        tally, outcomes = self.tallies[replica], tuple(self.outcomes[replica])
        self.tallies[replica], self.outcomes[replica] = NOTHING, []
        self.ops.append(Op(replica, self.view(replica).sequence, tally=tally, outcomes=outcomes))

    # -- appends

    def decided(self, op: Op, circuit: Circuit) -> CircuitFact | Refused | None:
        if op.tally is not None:
            return called(circuit, op.tally, PROVIDER, self.now)
        if op.ends:
            return probed(circuit, PROVIDER, op.attempt, op.outcome, self.now)
        return probe(circuit, PROVIDER, op.attempt, op.deadline, self.now)

    @precondition(lambda self: self.ops)
    @rule(picks=st.lists(PICK, min_size=1, max_size=4))
    def appends_land(self, picks: list[int]) -> None:
        for pick in picks[: len(self.ops)]:
            self.an_append_lands(pick)

    def an_append_lands(self, pick: int) -> None:
        op = self.ops.pop(pick % len(self.ops))
        stale = self.view(op.replica)
        fact = self.decided(op, stale)
        if fact is None or isinstance(fact, Refused) or stale.sequence != self.last():
            fact = self.decided(op, self.circuit())  # a conflict, or what no stale view may decide
        overtaken = any(one is None for _, one in self.log[self.seen[op.replica] :])
        before = self.circuit()
        for outcome in op.outcomes if before.state == "closed" else ():
            self.failures = 0 if outcome is None else self.failures + trips_breaker(outcome)
            if self.failures >= PROVIDER.breaker_failures:
                break
        if isinstance(fact, ProbeStarted):
            self.begins_to_probe(op, before, fact)
        elif fact is None and op.attempt and not op.ends:
            self.calls.append(Call(op.replica, op.attempt, probes=False))  # closed meanwhile
            assert before.state == "closed"
        if op.ends and not overtaken and isinstance(fact, Opened | Closed):
            assert (before.state, before.probe) == ("half-open", op.attempt), "only the probe that runs decides"
        if fact is not None and not isinstance(fact, Refused):
            self.append(fact)
            if overtaken:  # it was decided from the failures of a provider that is no more, and there they stand
                self.failures = self.circuit().failures
        self.write(op.replica)

    def begins_to_probe(self, op: Op, before: Circuit, fact: ProbeStarted) -> None:
        if before.state == "closed":
            assert None in [one for _, one in self.log[self.seen[op.replica] :]], "nobody probes what is closed"
            self.calls.append(Call(op.replica, op.attempt, probes=False))
            return
        assert self.now >= (before.retry_at or 0.0), "nobody probes before it is time"
        assert before.probe_until is None or self.now >= before.probe_until, "nobody probes beside another"
        assert self.now < fact.until
        self.calls.append(Call(op.replica, op.attempt, probes=True))

    def append(self, fact: CircuitFact | None) -> None:
        self.log.append((self.now, fact))
        if self.circuit().state == "closed" and self.circuit().failures == 0:
            self.failures = 0

    @rule(chance=RARELY)
    def somebody_resets_it(self, chance: int) -> None:
        if chance:
            return
        fact = reset(self.circuit(), "p", None)
        if fact is not None:
            self.append(fact)

    @rule(chance=RARELY)
    def the_provider_is_removed_and_registered_again(self, chance: int) -> None:
        if not chance:
            self.append(None)

    # -- what must hold

    @invariant()
    def no_failure_in_a_row_is_lost(self) -> None:
        circuit = self.circuit()
        if circuit.state == "closed":
            assert circuit.failures == self.failures < PROVIDER.breaker_failures

    @invariant()
    def one_attempt_probes_at_a_time(self) -> None:
        circuit = self.circuit()
        assert (circuit.state == "half-open") == (circuit.probe is not None)
        assert sum(call.probes and call.attempt == circuit.probe for call in self.calls) <= 1
        starts = [fact.attempt_id for _, fact in self.log if isinstance(fact, ProbeStarted)]
        assert len(starts) == len(set(starts))


Breakers.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestBreakers = Breakers.TestCase
