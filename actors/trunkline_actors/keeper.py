"""The keeper: ends attempts whose process died, answers their callers, and closes slices of budgets that died with it.

One leads; the others stand by.

Every keeper listens to the log and to the pulses, so that whoever takes over knows what its predecessor knew. Only
time in which we were connected and the log had a leader counts against an attempt: a process must never be taken for
dead because nobody could hear it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from nats.aio.client import Msg
from trunkline_events import headers
from trunkline_events.budget import ScopeBooks
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.log import LogError, Scope
from trunkline_events.money import usd_from_nanos
from trunkline_events.refusal import Refused
from trunkline_events.subjects import PULSE
from trunkline_events.tasks import end_task
from trunkline_events.thread import AttemptFailed, Ending, RouteDecided
from trunkline_projections.attempts import SliceUse, UnderWay
from trunkline_projections.folds import ATTEMPTS
from trunkline_projections.runner import View
from trunkline_projections.threads import books_of

from trunkline_actors import endings, slices
from trunkline_actors.dispatch import Outcome, encode, read_pulse
from trunkline_actors.lease import Lease
from trunkline_actors.ledger import end, ended_at, ended_by
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.runtime import DEAD_AFTER, Runtime
from trunkline_actors.shell import Command, Decided
from trunkline_actors.watch import Watch, Watched

log = structlog.get_logger()

LEASE_SECONDS = DEAD_AFTER
"""How long an attempt may go unseen."""
TICK = 0.25
LONGEST_TICK = 1.0
"""A longer one means that we ourselves were stopped; that time counts against nobody."""
VOID = Failure(kind=FailureClass.UNAVAILABLE, message="its router was taken for dead before it decided")
RECENT = 10.0
"""Seconds of log to look back on at the start, for callers whose answer died with everything else."""


class KeeperActor(ServiceActor):
    """Ends what nobody else will."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-keeper", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._view: View[UnderWay] = View(runtime.log, ATTEMPTS, runtime.snapshots)
        self._watch = Watch()
        self._followed_from = 0
        """The sequence up to which we know only what is open, and have not seen how what had ended did."""
        self._unheard: dict[str, float] = {}
        self._closing: set[str] = set()
        self._lease = Lease(runtime, "keeper")
        self._subscription: Any = None
        self._ticking: asyncio.Task[None] | None = None

    def endpoints(self) -> list[Endpoint]:
        return []

    @property
    def leads(self) -> bool:
        """Whether this keeper is the one that acts."""
        return self._lease.held

    async def starting(self) -> None:
        self._subscription = await self.bus.nats.subscribe(PULSE, cb=self._heard)
        self._view.on_change.append(self._happened)
        await self._view.start()
        self._followed_from = self._view.position
        for pending in self._view.state.attempts.values():
            self._watch.decided(pending.attempt_id, pending.aggregate, pending.sequence, pending.deadline)
        self.spawn(self._look_back())
        await self._lease.start()
        self._ticking = asyncio.create_task(self._tick())
        await super().starting()

    async def _look_back(self) -> None:
        """What ended lately and may be unanswered. What is open is known from the fold."""
        since = self._runtime.clock() - RECENT
        async for event in self._runtime.log.read(scope=Scope(ATTEMPTS.categories), since=since):
            self._happened(event)
        self._watch.forget_before(self._runtime.clock() - LEASE_SECONDS)

    async def quiesce(self) -> None:
        await super().quiesce()
        await end_task(self._ticking)
        await self._lease.stop()

    async def stopped(self) -> None:
        await self._unsubscribe([self._subscription])
        await self._view.stop()
        await super().stopped()

    async def fallen(self) -> None:
        await end_task(self._ticking)
        await self._lease.stop()
        await self._unsubscribe([self._subscription])
        await self._view.stop()
        await super().fallen()

    # -- what happens ----------------------------------------------------------------------------------------------

    def _happened(self, event: RecordedEvent) -> None:
        body = event.body
        if isinstance(body, RouteDecided):
            self._watch.decided(body.attempt_id, event.aggregate, event.sequence, body.deadline)
        elif (attempt_id := ended_by(event)) is not None:
            self._watch.ended(attempt_id, event.sequence)

    async def _heard(self, message: Msg) -> None:
        pulse = read_pulse(message.data)
        if pulse is None:
            return
        self._unheard[pulse.process] = 0.0
        self._watch.seen(pulse.attempts)
        self._watch.waited_for(pulse.waiting)
        self._watch.answered(pulse.answered)

    # -- acting ----------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            healthy = await self._healthy()
            now = time.monotonic()
            passed, last = now - last, now
            if not healthy or passed > LONGEST_TICK:
                continue
            dead = self._dead(passed)
            if not self._lease.held:
                self._watch.wait(passed)
                continue
            for name, use in self._view.state.slices.items():
                if use.holder in dead and _unsettled(use) and name not in self._closing:
                    self._closing.add(name)
                    self.spawn(self._close(name, use))
            for watched in self._watch.pass_time(passed, LEASE_SECONDS):
                self.spawn(self._rescue(watched))

    def _dead(self, passed: float) -> set[str]:
        """Processes that hold slices and have not been heard of for a lease."""
        holders = {use.holder for use in self._view.state.slices.values()}
        self._unheard = {name: self._unheard.get(name, 0.0) + passed for name in holders}
        return {name for name, seconds in self._unheard.items() if seconds >= LEASE_SECONDS}

    async def _close(self, name: str, use: SliceUse) -> None:
        """Give back what a dead process held of a budget: what is free at once, the rest as its attempts end."""
        try:
            if not use.frozen:
                decided = await self._decide(
                    use.scope, f"{name}/frozen", lambda books, now: slices.freeze(books, name, now)
                )
                if decided is not None:
                    # What it decided before that is in the log before it; what comes after is void.
                    await self._view.reached(decided.sequence)
            settled = slices.Settle(
                slice=name, spent_nanos=use.spent_nanos, keep_nanos=sum(use.open.values()), closed=not use.open
            )
            decided = await self._decide(
                use.scope,
                f"{name}/settled/{self._view.position}",
                lambda books, now: slices.settle(books, settled, now, keeper=True),
            )
            if decided is not None:
                log.warning("keeper.slice_settled", budget=use.scope, holder=use.holder, closed=settled.closed)
                await self._view.reached(decided.sequence)
        except (LogError, TimeoutError) as error:
            log.warning("keeper.slice_not_settled", budget=use.scope, error=type(error).__name__)
        finally:
            self._closing.discard(name)

    async def _decide(self, scope: str, command_id: str, decide: Callable[[ScopeBooks, float], Any]) -> Decided | None:
        runtime = self._runtime
        command: Command[ScopeBooks] = Command(
            category="budget", aggregate=scope, id=command_id, decide=decide, actor=runtime.name
        )
        decided = await runtime.shell.execute(runtime.scopes, command)
        return decided if isinstance(decided, Decided) else None

    async def _healthy(self) -> bool:
        """Whether we would hear a pulse if there was one: connected, and the log has a leader."""
        if not self.bus.nats.is_connected:
            return False
        try:
            async with asyncio.timeout(LONGEST_TICK):
                await self._runtime.log.end()
        except (LogError, TimeoutError):
            return False
        return True

    async def _rescue(self, watched: Watched) -> None:
        """End an attempt that nobody has seen for a lease, if it is open, and answer its caller."""
        recorded = await self._runtime.log.get(watched.sequence)
        if recorded is None or not isinstance(recorded.body, RouteDecided):
            return
        decision = recorded.body
        if watched.ended is None:
            attempt = endings.of_decision(watched.aggregate, decision, recorded.traceparent)
            runtime = self._runtime
            if watched.sequence <= self._followed_from:
                # To the fold it is open also where it ended in an event that can't be read.
                ended = await ended_at(runtime.log, watched.aggregate, watched.attempt_id, watched.sequence)
                if ended is not None:
                    self._watch.ended(watched.attempt_id, ended.sequence)
                    return
            last_seen = runtime.clock() - LEASE_SECONDS
            pending = self._view.state.attempts.get(decision.attempt_id)
            ending_of_it = endings.orphaned(attempt, last_seen)
            if pending is not None and pending.void:
                ending_of_it = endings.failed(attempt, VOID, (runtime.clock() - decision.now) * 1000)
            decided = await end(runtime.shell, runtime.ledger, attempt, ending_of_it, actor=runtime.name)
            if decided is None:
                return
            log.warning("keeper.orphaned", request=decision.request_id, attempt=decision.attempt_id)
            assert isinstance(decided.event, Ending)
            ending, sequence = decided.event, decided.sequence
        else:
            ended = await self._runtime.log.get(watched.ended)
            if ended is not None and isinstance(ended.body, Unknown):
                self._runtime.answered([watched.attempt_id])  # what to answer, nobody knows
            if ended is None or not isinstance(ended.body, Ending):
                return
            ending, sequence = ended.body, ended.sequence
        if not watched.answered:
            await self._answer(decision, ending, sequence)
        if watched.router and self.bus.may_reply(watched.router):
            served = [decision.reply]
            outcome = Outcome(
                status="ended",
                books=books_of(ending, sequence),
                books_seq=sequence,
                cost_nanos=endings.cost_of(ending),
                served=served,
            )
            await self.bus.publish(watched.router, encode(outcome))
        self._runtime.answered([watched.attempt_id])

    async def _answer(self, decision: RouteDecided, ending: Ending, sequence: int) -> None:
        if not self.bus.may_reply(decision.reply):
            return
        fields = {
            headers.MODEL: headers.encode_value(decision.model),
            headers.PROVIDER: headers.encode_value(decision.provider),
            headers.ATTEMPTS: str(decision.attempt),
            headers.EVENT: str(sequence),
            headers.FINISH: "error",
        }
        fields[headers.COST] = usd_from_nanos(endings.cost_of(ending))
        refused = _loss(ending, sequence)
        await self.bus.refuse(decision.reply, refused, decision.asked.operation, decision.request_id, fields)
        if decision.asked.stream:
            await self.bus.publish(decision.reply, b"", fields)


def _loss(ending: Ending, sequence: int) -> Refused:
    """What a caller is told whose answer died with a process."""
    if isinstance(ending, AttemptFailed):
        return Refused(code="unavailable", message="the process that routed this request was lost; send it again")
    return Refused(
        code="unavailable",
        message="the process that served this request was lost with the answer; what it cost is settled",
        retryable=False,
        metadata={"event": sequence, "settled": ending.__struct_config__.tag},
    )


def _unsettled(use: SliceUse) -> bool:
    """Whether there is something to give back of a dead process's slice."""
    return not use.frozen or not use.open or use.spent_nanos != use.reported_nanos
