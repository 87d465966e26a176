"""The router: decides which model serves a request, sends it there, and decides again when an attempt fails."""

import random
import re
from collections.abc import Mapping
from typing import cast

import structlog
from trunkline_events import headers, subjects
from trunkline_events.failure import FailureClass, answer_for, tries_another
from trunkline_events.log import LogRefused, LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, RequestRefused, RouteDecided
from trunkline_projections.models import Registry
from trunkline_projections.threads import books_of

from trunkline_actors import money, routing
from trunkline_actors.bus import Delivery, trace_id
from trunkline_actors.catalogue import lookup
from trunkline_actors.claims import Claim, fingerprint_of, scope_of
from trunkline_actors.courier import Courier, DecidedRoute
from trunkline_actors.dispatch import Outcome, read_join
from trunkline_actors.idempotency import ANOTHER_REQUEST, Idempotency
from trunkline_actors.inflight import InFlight, Run
from trunkline_actors.micro import Endpoint, ServiceActor, log_down
from trunkline_actors.pricing import Rate, price_model
from trunkline_actors.requests import Parsed, parse_chat, parse_embeddings
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command

log = structlog.get_logger()

_STREAM = re.compile(rb'"stream"\s*:\s*true')

ABORTED = Refused(code="aborted", message="the request was aborted")
OVERLOADED = Refused(code="unavailable", message="the log is behind; send the request again a little later")
MAX_BACKLOG = 2_000
"""Events waiting for their acknowledgement above which no request is taken on: refused now beats unanswered later."""
DISPATCH_ROOM = 64 * 1024
"""Bytes that a message to a provider may need beside the caller's body."""
_MAY_BE_STALE = frozenset({"model_not_found", "no_route"})


class RouterActor(ServiceActor):
    """Routes chat and embeddings requests to providers, one recorded decision an attempt."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-router", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._runs = InFlight()
        self._courier = Courier(runtime)
        self._idempotency = Idempotency(runtime)
        self._rated: Registry | None = None
        self._rates: dict[str, Rate] = {}

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(name="chat", subject=subjects.CHAT, handler=self._chat),
            Endpoint(name="embeddings", subject=subjects.EMBEDDINGS, handler=self._embeddings),
            Endpoint(name="abort", subject=subjects.ABORT, handler=self._abort, queue=""),
            Endpoint(name="join", subject=subjects.JOIN, handler=self._join, queue=""),
        ]

    # -- endpoints -------------------------------------------------------------------------------------------------

    async def _chat(self, delivery: Delivery) -> Refused | None:
        return await self._receive(delivery, parse_chat(delivery.data))

    async def _embeddings(self, delivery: Delivery) -> Refused | None:
        return await self._receive(delivery, parse_embeddings(delivery.data))

    async def _abort(self, delivery: Delivery) -> Refused | None:
        return await self._runs.abort(self.bus, delivery)

    async def _join(self, delivery: Delivery) -> Refused | None:
        join = read_join(delivery.data)
        if join is None or not self.bus.may_reply(join.inbox) or not self._runs.owns(join.scope):
            return None
        if self._runs.listen(join.scope, join.inbox):
            await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    async def refused(self, delivery: Delivery) -> None:
        if _STREAM.search(delivery.data):  # who waits for the empty message must get one
            await self.bus.publish(delivery.reply)

    # -- one request -----------------------------------------------------------------------------------------------

    async def _receive(self, delivery: Delivery, parsed: Parsed | Refused) -> Refused | None:
        if isinstance(parsed, Refused):
            return parsed
        if len(delivery.data) > self.bus.nats.max_payload - DISPATCH_ROOM:
            return Refused(
                code="invalid_request", message=f"a body of {len(delivery.data)} bytes is more than we carry"
            )
        if self._runtime.log.backlog > MAX_BACKLOG:
            return OVERLOADED
        thread = delivery.header(headers.THREAD) or parsed.thread
        chosen = delivery.header(headers.REQUEST)
        for param, identifier in ((headers.THREAD, thread), (headers.REQUEST, chosen)):
            if identifier is not None and (problem := subjects.id_problem(identifier)):
                return Refused(code="invalid_request", message=f"{param}: {problem}", param=param)
        thread = thread or subjects.NO_THREAD
        scope = scope_of(delivery.header(headers.KEY) or "", thread, chosen) if chosen else None
        fingerprint = fingerprint_of(delivery.subject, delivery.data) if scope else ""
        if scope and self._runs.differs(scope, fingerprint):
            return ANOTHER_REQUEST
        if scope and self._runs.waits(scope, delivery.reply):  # and hears nothing, or it would not ask again
            await self._idempotency.remind(scope, [delivery.reply])
        if scope and self._runs.listen(scope, delivery.reply):
            await self._courier.tell_of(scope, delivery.reply)
            return None
        run = Run(
            request_id=chosen or self._runtime.new_id(),
            scope=scope,
            thread=thread,
            listeners=[delivery.reply],
            fingerprint=fingerprint,
            traceparent=delivery.traceparent,
        )
        with self._runs.holding(run):
            try:
                try:
                    refused = await self._serve(run, parsed, delivery.data)
                except (LogUnavailable, LogRefused) as error:
                    log.warning("router.log_down", request=run.request_id, error=type(error).__name__)
                    run.leave_claim = True
                    refused = log_down(error)
                if refused is not None:
                    await self._conclude(run, parsed, refused)
            finally:
                self._runtime.answered(run.attempt_ids)
        return None

    async def _serve(self, run: Run, parsed: Parsed, body: bytes) -> Refused | None:
        """Try candidates until one has answered; a refusal is what the caller is to be told."""
        deadline = self._runtime.clock() + parsed.route.deadline_ms / 1000
        if run.scope and (settled := await self._idempotency.claim(run, deadline)):
            return settled.refused
        request = routing.Request(
            request_id=run.request_id,
            attempt_id=run.attempt_id(1),
            attempt=1,
            parsed=parsed,
            tried=(),
            reply=run.listeners[0],
            deadline=deadline,
        )
        failure: Refused | None = None
        while True:
            if run.aborted:
                return ABORTED
            decided = await self._decide(run, request)
            if isinstance(decided, Refused):
                return failure if failure and decided.code == "no_route" else decided
            outcome = await self._courier.deliver(run, request, decided, body)
            if outcome is None or outcome.status == "lost":
                run.leave_claim = True  # it may yet be settled: only the log knows
                if run.scope and await self._idempotency.remind(run.scope, run.listeners):
                    return None
                if outcome is not None:
                    return Refused(code="internal", message=outcome.message, retryable=False, metadata=_tried(request))
                return Refused(code="timeout", message="no answer came within the deadline", metadata=_tried(request))
            if outcome.status == "ended":
                await self._idempotency.catch_up(run, outcome.served)
                return None
            failure = _told(outcome, request, decided.event.model)
            late = self._runtime.clock() >= request.deadline
            if late or request.attempt >= parsed.route.attempts or not _goes_on(outcome):
                return failure
            request = routing.with_attempt(request, run.attempt_id(request.attempt + 1), decided.event.model)

    async def _decide(self, run: Run, request: routing.Request) -> DecidedRoute | Refused:
        """Choose and reserve; before saying that nothing fits, look whether the registry has moved on."""
        decided = await self._decide_now(run, request)
        if isinstance(decided, Refused) and decided.code in _MAY_BE_STALE:
            await self._runtime.gateway.catch_up()
            decided = await self._decide_now(run, request)
        return decided

    async def _decide_now(self, run: Run, request: routing.Request) -> DecidedRoute | Refused:
        draw = random.random()
        moment = self._moment(self._runtime.clock(), draw)
        decision: RouteDecided | RequestRefused | Refused | None = None

        def decide(books: Books, now: float) -> RouteDecided | RequestRefused | Refused:
            nonlocal moment, decision
            moment = self._moment(now, draw)
            decision = routing.decide(books, request, moment)
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
                self.spawn(self._courier.withdraw_uncertain(run, decision))
            raise
        assert decided is not None
        if isinstance(decided, Refused):
            return decided
        if isinstance(decided.event, RequestRefused):
            run.base += 1  # its event has this attempt's id, which nothing else of this request must use again
            if decided.duplicate:  # an earlier run of this request was refused, which says nothing of this one
                return await self._decide_now(run, routing.with_id(request, run.attempt_id(request.attempt)))
            return money.over_budget(books_of(decided.event, decided.sequence), decided.event.needed_nanos)
        event = cast("RouteDecided", decided.event)
        model = moment.gateway.registry.models[event.model]
        run.attempt_ids.append(event.attempt_id)
        self._runtime.held.add(event.attempt_id)
        return DecidedRoute(event, decided.sequence, model.upstream, moment.rates[event.model])

    async def _conclude(self, run: Run, parsed: Parsed, refused: Refused) -> None:
        """Tell everyone who waits that it came to nothing, and free the request id for another try."""
        if run.scope and not run.leave_claim:
            claim = Claim(state="failed", since=self._runtime.clock(), attempts=run.base + run.attempts)
            await self._runtime.claims.keep(run.scope, claim)
        log.info(
            "request.refused",
            request=run.request_id,
            thread=run.thread,
            model=parsed.asked.model,
            trace=trace_id(run.traceparent),
            code=refused.code,
        )
        self.count_error(parsed.asked.operation, refused)
        fields = {headers.ATTEMPTS: str(run.attempts)} if run.attempts else None
        for inbox in run.listeners:
            await self.bus.refuse(inbox, refused, parsed.asked.operation, run.request_id, fields)
            if parsed.asked.stream:
                await self.bus.publish(inbox)

    # -- what decisions are made from ------------------------------------------------------------------------------

    def _moment(self, now: float, draw: float) -> routing.Moment:
        view = self._runtime.gateway
        return routing.Moment(
            gateway=view.state,
            rates=self._current_rates(view.state.registry),
            log_seq=view.position,
            now=now,
            draw=draw,
        )

    def _current_rates(self, registry: Registry) -> Mapping[str, Rate]:
        if registry is not self._rated:
            self._rates = {
                model.id: price_model(model, registry.model_seq[model.id], registry.providers[model.provider], lookup)
                for model in registry.models.values()
                if model.provider in registry.providers
            }
            self._rated = registry
        return self._rates


def _goes_on(outcome: Outcome) -> bool:
    return tries_another(outcome.failure or FailureClass.INTERNAL)


def _told(outcome: Outcome, request: routing.Request, model: str) -> Refused:
    """What the caller hears if no other candidate is left."""
    answer = answer_for(outcome.failure or FailureClass.INTERNAL)
    metadata: dict[str, object] = {"failure": outcome.failure, "tried": [*request.tried, model]}
    if outcome.retry_after is not None:
        metadata["retry_after"] = outcome.retry_after
    return Refused(
        code=answer.code, message=f"{model}: {outcome.message}", retryable=answer.retryable, metadata=metadata
    )


def _tried(request: routing.Request) -> dict[str, list[str]]:
    return {"tried": list(request.tried)}
