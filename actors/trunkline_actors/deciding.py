"""Decides which model serves a request, from its thread's books and slices of the budgets above, and appends that."""

import asyncio
import random
from collections import Counter
from typing import cast

from msgspec import structs
from trunkline_events.log import LogRefused, LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, RequestRefused, RouteDecided
from trunkline_projections.threads import books_of

from trunkline_actors import money, routing, slices
from trunkline_actors.bounds import count_input, encoding_of
from trunkline_actors.courier import Courier, DecidedRoute
from trunkline_actors.escrow import Escrow
from trunkline_actors.inflight import Run
from trunkline_actors.mailbox import Spawn
from trunkline_actors.moment import Moment, Request, as_decided, with_id, with_tokens
from trunkline_actors.money import Exceeded, Underfunded, Waiting, exceeded
from trunkline_actors.parked import thread_of
from trunkline_actors.preparing import Prepared, Preparing
from trunkline_actors.present import moment_of
from trunkline_actors.purse import hold_of
from trunkline_actors.routing import Reconfigured
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command
from trunkline_actors.shortlist import Shortlists

MAX_RECONFIGURED = 4
"""Times a thread may be configured anew while one request of it is being decided."""
MAX_LEASES = 16
"""Times a request asks for more of a budget before it gives up: others may be quicker to take what it leased."""
_MAY_BE_STALE = frozenset({"model_not_found", "no_route"})

CONTENDED = Refused(code="unavailable", message="a budget of this request is contended; send it again")

UNCOUNTED = Refused(code="budget_exceeded", message="the bytes of the input are too dear, its tokens may not be")


class Decider:
    """Decisions of one router."""

    def __init__(self, runtime: Runtime, escrow: Escrow, courier: Courier, spawn: Spawn) -> None:
        self._runtime = runtime
        self._escrow = escrow
        self._courier = courier
        self._spawn = spawn
        self._preparing = Preparing(runtime)
        self._shortlists = Shortlists()
        self._turns: Counter[str] = Counter()

    async def decide(self, run: Run, request: Request, body: bytes) -> DecidedRoute | Refused | None:
        """Choose and reserve; before saying that nothing fits, look whether the registry has moved on.

        None: another process has decided this attempt, and serves it. Raises LogUnavailable, LogRefused.
        """
        config_seq: int | None = None
        for _ in range(MAX_RECONFIGURED):
            prepared = await self._preparing.of(request, body, config_seq)
            if isinstance(prepared, Refused):
                return prepared
            decided = await self._prepared(run, prepared)
            if not isinstance(decided, Reconfigured):
                return decided
            config_seq = decided.sequence
        return CONTENDED

    async def _prepared(self, run: Run, prepared: Prepared) -> DecidedRoute | Refused | None:
        request, body = prepared.request, prepared.body
        decided = await self._funded(run, request)
        if isinstance(decided, Refused) and decided.code in _MAY_BE_STALE:
            await self._runtime.gateway.catch_up()
            decided = await self._funded(run, request)
        if decided is UNCOUNTED:
            decided = await self._funded(run, await self._counted(request, body))
        if isinstance(decided, DecidedRoute) and body is not decided.body:
            return structs.replace(decided, body=body)
        return decided

    async def behind(self, run: Run, at: str) -> Waiting:
        """What a request is told that waits at this budget behind others, should it wait in vain."""
        now, message = self._runtime.clock(), f"others, who came earlier, wait for the budget {at!r}"
        if thread_of(at) is None:
            known = self._runtime.scopes.known(at)
            short = exceeded(slices.account(at, slices.turn(known.books, now)), 0, [], now) if known else None
        else:
            books, _, _ = await self._runtime.ledger.load(run.thread, fresh=False)
            short = None if books.limit_nanos is None else money.over_budget(money.turn(books, now), 0, now)
        metadata = {**short.metadata, "needed_usd": None} if short else {"budget": at}
        code = "budget_exceeded" if short else "unavailable"
        return Waiting(code=code, message=message, retryable=True, scope=at, metadata=metadata)

    async def _counted(self, request: Request, body: bytes) -> Request:
        """The request with its input counted by every tokenizer that a model of ours needs and that is at hand."""
        registry = self._runtime.gateway.state.registry
        needed = {
            encoding_of(registry.providers[model.provider].kind, model.upstream)
            for model in registry.models.values()
            if model.provider in registry.providers
        }
        tokens = {}
        for encoding in sorted(filter(None, needed)):
            counted = await asyncio.to_thread(count_input, body, request.parsed.asked.operation, encoding)
            tokens[encoding] = request.parsed.asked.input_bound if counted is None else counted
        return with_tokens(request, tokens or {"": request.parsed.asked.input_bound})

    async def _funded(self, run: Run, request: Request) -> DecidedRoute | Refused | None:
        answers: dict[str, Refused] = {}
        for _ in range(MAX_LEASES):
            decided = await self._once(run, request, answers)
            if not isinstance(decided, Underfunded):
                return decided
            if not request.parsed.asked.tokens:  # it may yet be counted, so it is refused for good by nobody
                decided = structs.replace(decided, floor_nanos=0)
            answer = await self._escrow.lease(decided, run.request_id, run.thread)
            if answer is not None:
                answers[decided.scope] = answer
        return CONTENDED

    async def _once(self, run: Run, request: Request, answers: dict[str, Refused]) -> DecidedRoute | Refused | None:
        draw, escrow = random.random(), self._escrow
        counted = False
        hold = hold_of(request.attempt_id, draw)
        moment: Moment | None = None
        decision: RouteDecided | RequestRefused | Refused | None = None

        def decide(books: Books, now: float) -> RouteDecided | RequestRefused | Refused:
            nonlocal moment, decision, counted
            moment = self._moment(now, draw)
            escrow.give_back(hold)  # from the last time, where that came to nothing
            decision = routing.decide(books, request, moment, escrow.funds(request.key, now, answers))
            if isinstance(decision, RouteDecided):
                escrow.take(hold, decision.request_id, decision.slices, decision.reserve_nanos)
                if not counted and decision.basis.turn is not None and request.attempt == 1:
                    self._turns[decision.rule or ""] += 1
                    counted = True
            elif not request.parsed.asked.tokens and _lacks_money(decision):
                return UNCOUNTED
            return decision

        command: Command[Books] = Command(
            category="thread",
            aggregate=run.thread,
            id=f"{request.attempt_id}/decided",
            decide=decide,
            actor=self._runtime.name,
            cause=run.request_id,
            traceparent=run.traceparent,
        )
        try:
            decided = await self._runtime.shell.execute(self._runtime.ledger, command)
        except LogUnavailable:
            if isinstance(decision, RouteDecided):
                self._spawn(self._withdraw(run, decision))
            raise
        except LogRefused:
            escrow.give_back(hold)
            raise
        assert decided is not None
        if isinstance(decided, Refused):
            escrow.give_back(hold)
            return decided
        if isinstance(decided.event, RequestRefused):
            escrow.give_back(hold)
            run.base += 1  # its event has this attempt's id, which nothing else of this request must use again
            if decided.duplicate:  # an earlier run of this request was refused, which says nothing of this one
                return await self._once(run, with_id(request, run.attempt_id(request.attempt)), answers)
            return self._told(decided.event, decided.sequence, answers)
        assert moment is not None, "it was decided"
        return await self._begun(run, request, cast("RouteDecided", decided.event), decided.sequence, moment)

    async def _begun(
        self, run: Run, request: Request, event: RouteDecided, sequence: int, moment: Moment
    ) -> DecidedRoute | Refused | None:
        if event.draw != moment.draw:
            self._escrow.give_back(hold_of(request.attempt_id, moment.draw))
            return None
        try:
            may_spend = await self._escrow.may_spend(event)
        except LogUnavailable:
            self._spawn(self._withdraw(run, event))
            raise
        if not may_spend:
            # We were taken for dead, and what we decided since is void: it is ended, and decided anew.
            await self._withdraw(run, event)
            run.base += 1
            return await self._once(run, with_id(request, run.attempt_id(request.attempt)), {})
        serves = as_decided(moment.gateway.registry.models[event.model], event.version)
        self._tell_of_statistics(event)
        run.attempt_ids.append(event.attempt_id)
        self._runtime.held.add(event.attempt_id)
        return DecidedRoute(event, sequence, serves.upstream, moment.rates[serves.name])

    def _tell_of_statistics(self, event: RouteDecided) -> None:
        if event.basis.blind:
            self._runtime.degraded.enter("no-statistics", "models take turns")
        elif event.stats:
            self._runtime.degraded.leave("no-statistics")

    async def _withdraw(self, run: Run, event: RouteDecided) -> None:
        ended_by_others = await self._courier.withdraw_uncertain(run, event)
        if ended_by_others == 0:
            self._escrow.give_back(hold_of(event.attempt_id, event.draw))
        elif ended_by_others is not None:
            self._escrow.find_out(run.thread, event, ended_by_others)

    def _told(self, event: RequestRefused, sequence: int, answers: dict[str, Refused]) -> Refused:
        if event.budget == money.THREAD:
            return money.over_budget(books_of(event, sequence), event.needed_nanos, self._runtime.clock())
        return answers.get(event.budget) or Refused(code=event.code, message=event.message)

    def _moment(self, now: float, draw: float) -> Moment:
        return moment_of(
            self._runtime, now, draw, shortlists=self._shortlists, busy=self._courier.busy, turns=self._turns
        )


def _lacks_money(decision: RequestRefused | Refused) -> bool:
    return isinstance(decision, RequestRefused | Exceeded | Waiting)
