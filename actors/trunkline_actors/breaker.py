"""The circuit breaker of one provider instance, as one of its processes works it.

What this process has read of the log says whether the circuit is open. What calls come to is appended beside them, so
that no answer waits for it; only a probe waits, for the log to say that it is the only one.
"""

import asyncio
from collections.abc import Callable

import structlog
from trunkline_events.circuit import CircuitFact, Closed, Opened
from trunkline_events.envelope import Event
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.log import LogError
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_projections import circuits
from trunkline_projections.circuits import CLOSED, Circuit

from trunkline_actors.circuit import NOTHING, Tally, called, kept_out, matters, offers, probe, probed, tallied
from trunkline_actors.dispatch import Dispatch
from trunkline_actors.mailbox import Spawn
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided

log = structlog.get_logger()

PROBE_PATIENCE = 2.0
"""Seconds in which the log must say that an attempt may probe; else it has lost."""


class CircuitSource:
    """Circuits as this process knows them: what it has read of the log, and what it appended since."""

    def __init__(self, runtime: Runtime) -> None:
        self._log = runtime.log
        self._gateway = runtime.gateway
        self._appended: dict[str, Circuit] = {}
        self._lock = asyncio.Lock()

    def of(self, provider: str) -> Circuit:
        """The circuit of a provider instance; one that nothing happened to is closed."""
        if self._appended:
            appended = self._appended.get(provider)
            if appended is not None:
                if appended.sequence > self._gateway.position:
                    return appended
                del self._appended[provider]
        return self._gateway.state.circuits.get(provider, CLOSED)

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._lock

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Circuit, int | None, bool]:
        if not fresh:
            circuit = self.of(aggregate)
            return circuit, circuit.sequence, True
        last = await self._log.last("circuit", aggregate)
        sequence = last.sequence if last else 0
        await self._gateway.reached(sequence)
        circuit = self.of(aggregate)
        # A provider that was removed and registered again has a closed circuit, and the last event of the old one.
        return circuit, max(sequence, circuit.sequence), False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        assert isinstance(event, CircuitFact)
        self._appended[aggregate] = circuits.evolve({aggregate: self.of(aggregate)}, event, sequence)[aggregate]


class Breaker:
    """Lets attempts through, and records what their ends mean for the circuit."""

    def __init__(self, runtime: Runtime, provider: Provider, spawn: Spawn) -> None:
        self._runtime = runtime
        self._provider = provider
        self._spawn = spawn
        self._circuits = CircuitSource(runtime)
        self._tally = NOTHING
        self._unsure: tuple[str, Tally] | None = None
        """What the log may or may not have taken, and the id of its event."""
        self._recording = False

    async def admit(self, dispatch: Dispatch) -> Failure | None:
        """Let an attempt through, as a probe where the circuit is open and it is time; else why not.

        An attempt that is cut short meanwhile is so when it goes on.
        """
        circuit = self._circuits.of(self._provider.id)
        if circuit.state == "closed":
            return None
        if offers(circuit, self._runtime.clock()) is not None:
            return _refused(kept_out(circuit, self._provider.id))
        asking = self._spawn(self._ask_to_probe(dispatch))
        task = asyncio.current_task()
        assert task is not None
        cut = False
        while not asking.done():
            try:
                await asyncio.wait([asking])
            except asyncio.CancelledError:  # what the log says of the probe must be known all the same
                task.uncancel()
                cut = True
        if asking.cancelled():
            return _refused(f"the process that serves {self._provider.id!r} stops")
        refused: Failure | None = asking.result()
        if cut and refused is None:
            task.cancel()
        return refused

    def ended(self, attempt_id: str, failure: FailureClass | None) -> None:
        """An attempt ended, well where `failure` is None: what that means for the circuit is recorded beside."""
        circuit = self._circuits.of(self._provider.id)
        if circuit.probe == attempt_id:
            self._spawn(self._record_probe(attempt_id, failure))
        elif matters(circuit, failure, pending=self._unsure is not None or self._tally is not NOTHING):
            self._tally = tallied(self._tally, failure)
            if not self._recording:
                self._recording = True
                self._spawn(self._record())

    async def _ask_to_probe(self, dispatch: Dispatch) -> Failure | None:
        attempt_id, provider = dispatch.attempt_id, self._provider
        command = self._command(
            f"{attempt_id}/probe", lambda state, now: probe(state, provider, attempt_id, dispatch.deadline, now)
        )
        try:
            async with asyncio.timeout(PROBE_PATIENCE):
                decided = await self._runtime.shell.execute(self._circuits, command)
        except (LogError, TimeoutError) as error:
            log.warning("breaker.no_probe", provider=provider.id, error=str(error) or type(error).__name__)
            return _refused(f"the circuit of {provider.id!r} is open, and the log can't say who may probe; try again")
        return _refused(decided.message) if isinstance(decided, Refused) else None

    async def _record_probe(self, attempt_id: str, failure: FailureClass | None) -> None:
        """What a probe's end settles. Where the log is away, another may probe when this one's time is over."""
        provider = self._provider
        command = self._command(
            f"{attempt_id}/probed", lambda state, now: probed(state, provider, attempt_id, failure, now)
        )
        self._tell(await self._executed(command))

    async def _record(self) -> None:
        """Append what was tallied, one event after another until nothing is left; what the log doesn't take waits
        for the next end."""
        try:
            while (pending := self._next()) is not None:
                identity, tally = pending
                command = self._command(identity, lambda state, now, of=tally: called(state, of, self._provider, now))  # type: ignore[misc]
                self._unsure = pending
                done = await self._executed(command)
                if isinstance(done, Refused):
                    return
                self._unsure = None
                self._tell(done)
        finally:
            self._recording = False

    def _next(self) -> tuple[str, Tally] | None:
        if self._unsure is not None and not self._tally.healed:
            return self._unsure  # under the same id, so that it counts once
        self._unsure = None  # failures before a success are over
        if self._tally is NOTHING:
            return None
        tally, self._tally = self._tally, NOTHING
        return f"circuit/{self._runtime.new_id()}", tally

    def _command(self, identity: str, decide: Callable[[Circuit, float], Event | Refused | None]) -> Command[Circuit]:
        return Command(
            category="circuit",
            aggregate=self._provider.id,
            id=identity,
            decide=decide,
            actor=self._runtime.name,
        )

    async def _executed(self, command: Command[Circuit]) -> Decided | Refused | None:
        """What became of it; a refusal where the log is away or refuses, which no attempt has to hear of."""
        try:
            done = await self._runtime.shell.execute(self._circuits, command)
        except LogError as error:
            done = Refused(code="unavailable", message=str(error))
        if isinstance(done, Refused):
            log.warning("breaker.not_recorded", provider=self._provider.id, error=done.message)
        return done

    def _tell(self, done: Decided | Refused | None) -> None:
        if isinstance(done, Decided) and isinstance(done.event, Opened | Closed):
            log.warning(
                "breaker.changed", provider=self._provider.id, change=type(done.event).__name__, sequence=done.sequence
            )


def _refused(message: str) -> Failure:
    return Failure(kind=FailureClass.UNAVAILABLE, message=message)
