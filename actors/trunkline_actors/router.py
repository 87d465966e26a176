"""The router: decides which model serves a request, sends it there, and decides again when an attempt fails."""

import random
import re
from collections.abc import Coroutine
from typing import Any

import structlog
from trunkline_events import headers, subjects
from trunkline_events.failure import FailureClass
from trunkline_events.log import LogRefused, LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.thread import RouteDecided

from trunkline_actors import followups
from trunkline_actors.bus import Delivery, trace_id
from trunkline_actors.claims import Claim, fingerprint_of, scope_of
from trunkline_actors.courier import Courier, DecidedRoute
from trunkline_actors.deciding import Decider
from trunkline_actors.dispatch import Outcome, read_join
from trunkline_actors.escrow import Escrow
from trunkline_actors.followups import Tell
from trunkline_actors.idempotency import ANOTHER_REQUEST, Idempotency
from trunkline_actors.inflight import InFlight, Run
from trunkline_actors.keys import tokens_of, within
from trunkline_actors.keys_limiter import Limiter
from trunkline_actors.micro import Endpoint, ServiceActor, log_down
from trunkline_actors.moment import Request, with_attempt, with_id
from trunkline_actors.money import Waiting
from trunkline_actors.parked import Parked, Place
from trunkline_actors.parking import Parking, waits_at
from trunkline_actors.purse import hold_of
from trunkline_actors.requests import Parsed, parse_chat, parse_embeddings
from trunkline_actors.resting import ABORTED, Resting
from trunkline_actors.reusing import Reusing
from trunkline_actors.runtime import Runtime

log = structlog.get_logger()

_STREAM = re.compile(rb'"stream"\s*:\s*true')

OVERLOADED = Refused(code="unavailable", message="the log is behind; send the request again a little later")
MAX_BACKLOG = 2_000
"""Events waiting for their acknowledgement above which no request is taken on: refused now beats unanswered later."""
DISPATCH_ROOM = 64 * 1024
"""Bytes that a message to a provider may need beside the caller's body."""


class RouterActor(ServiceActor):
    """Routes chat and embeddings requests to providers, one recorded decision an attempt."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-router", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._runs = InFlight(runtime)
        self._courier = Courier(runtime)
        self._idempotency = Idempotency(runtime)
        self._reusing = Reusing(runtime, self._idempotency)
        self._escrow = Escrow(runtime, self.spawn)
        self._decider = Decider(runtime, self._escrow, self._courier, self.spawn)
        self._parking = Parking(runtime, self._go_on, self.spawn)
        self._resting = Resting()
        self._limiter = Limiter(runtime.bus, runtime.clock, runtime.replicas)
        self._escrow.on_freed = self._parking.freed

    async def starting(self) -> None:
        await self._escrow.start()
        await self._parking.start()
        await super().starting()

    async def quiesce(self) -> None:
        self._resting.stop()
        await super().quiesce()
        await self._parking.stop()

    async def stopped(self) -> None:
        await super().stopped()
        await self._escrow.stop()

    async def fallen(self) -> None:
        self._resting.stop()
        await super().fallen()
        await self._parking.stop()
        await self._escrow.stop()

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(name="chat", subject=subjects.CHAT, handler=self._chat),
            Endpoint(name="embeddings", subject=subjects.EMBEDDINGS, handler=self._embeddings),
            Endpoint(name="abort", subject=subjects.ABORT, handler=self._abort, queue="", need="chat"),
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
        key = self._runtime.door.for_whom(delivery.header(headers.KEY), delivery.header(headers.ON_BEHALF), "chat")
        if isinstance(key, Refused):
            return key
        if isinstance(parsed, Refused):
            return parsed
        if key is not None and isinstance(parsed := within(parsed, key), Refused):
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
        text = delivery.header(headers.KEY) or ""
        scope = scope_of(f"key:{key.id}" if key else text, thread, chosen) if chosen else None
        fingerprint = fingerprint_of(delivery.subject, delivery.data) if scope else ""
        if scope and self._runs.differs(scope, fingerprint):
            return ANOTHER_REQUEST
        if scope and self._runs.waits(scope, delivery.reply):  # and hears nothing, or it would not ask again
            await self._idempotency.remind(scope, [delivery.reply])
        if scope and self._runs.listen(scope, delivery.reply):
            await self._courier.tell_of(scope, delivery.reply)
            return None
        if key is not None and (limited := await self._limiter.take(key, tokens_of(parsed))):
            return limited
        run = Run(
            request_id=chosen or self._runtime.new_id(),
            scope=scope,
            thread=thread,
            listeners=[delivery.reply],
            key=key.id if key else self._runtime.door.fingerprint(text),
            limits=self._limiter.told(key) if key else "",
            fingerprint=fingerprint,
            traceparent=delivery.traceparent,
        )
        run.drawn_at, run.again = headers.drawn_at(delivery.headers.get(headers.DRAWN))
        await self._carry(run, parsed, self._begin(run, parsed, delivery.data))
        return None

    async def _carry(self, run: Run, parsed: Parsed, work: Coroutine[Any, Any, Refused | None]) -> None:
        """Have a request served, and tell its callers where that came to nothing."""
        with self._runs.holding(run, parsed.asked):
            try:
                try:
                    refused = await work
                except (LogUnavailable, LogRefused) as error:
                    log.warning("router.log_down", request=run.request_id, error=str(error))
                    run.leave_claim = True
                    refused = log_down(error)
                if refused is not None:
                    await self._conclude(run, parsed, refused)
            finally:
                self._runtime.answered(run.attempt_ids)

    async def _begin(self, run: Run, parsed: Parsed, body: bytes) -> Refused | None:
        deadline = self._runtime.clock() + parsed.route.deadline_ms / 1000
        if run.scope and (settled := await self._idempotency.claim(run, deadline)):
            return settled.refused
        request = Request(
            request_id=run.request_id,
            attempt_id=run.attempt_id(1),
            attempt=1,
            parsed=parsed,
            tried=(),
            reply=run.listeners[0],
            deadline=deadline,
            key=run.key,
            thread=run.thread,
        )
        if await self._reusing.reuse(run, request, body):
            return None
        return await self._serve(run, request, body)

    async def _go_on(self, parked: Parked, body: bytes, place: Place) -> None:
        """Serve a request that waited, and may have to wait on."""
        parsed = parse_chat(body) if parked.operation == "chat" else parse_embeddings(body)
        assert isinstance(parsed, Parsed), "what was parked made sense before"
        run = parked.run()
        if (key := self._runtime.door.of_id(run.key)) and not isinstance(narrowed := within(parsed, key), Refused):
            parsed = narrowed
        if run.scope and self._runs.serve(run.scope, run.listeners):  # it was parked twice, or has been asked again
            await place.done()
            return
        run.on_abort = place.call
        try:
            await self._carry(run, parsed, self._serve(run, parked.request(run, parsed), body, place))
        finally:
            await place.done()

    async def _serve(self, run: Run, request: Request, body: bytes, place: Place | None = None) -> Refused | None:
        """Try candidates until one has answered; a refusal is what the caller is to be told."""
        while True:
            if run.aborted:
                return ABORTED
            decided = await (self._in_turn(run, request, body, place) if place else self._at_once(run, request, body))
            if isinstance(decided, Waiting) and place is None:
                return await self._parking.park(run, request, body, decided)
            if decided is None:  # another process serves it
                run.leave_claim = True
                return None
            if isinstance(decided, Refused) and (decided.code != "no_route" or run.course.told is None):
                return decided
            if place is not None:
                await place.done()
                place = None
            if isinstance(decided, Refused):
                rested = await self._rest(run, request)
                if isinstance(rested, Refused):
                    return rested
                request = rested
                continue
            outcome = await self._courier.deliver(run, request, decided)
            self._settle(run, decided, outcome)
            if outcome is None or outcome.status == "lost":
                return await self._of_the_lost(run, request, outcome)
            if outcome.status == "ended":
                await self._idempotency.catch_up(run, outcome.served)
                return None
            followed = self._followed(run, request, decided.event, outcome)
            if isinstance(followed, Refused):
                return followed
            request = followed

    async def _rest(self, run: Run, request: Request) -> Request | Refused:
        """No candidate is left: wait until some may be tried again, or say what the caller is told instead."""
        again = followups.after_no_route(request, run.course, self._runtime.clock(), random.random())
        if isinstance(again, Tell):
            return again.refused
        run.course = again.course
        log.info("request.rests", request=run.request_id, seconds=again.wait_s, tried=list(request.tried))
        return await self._resting.rest(run, again.wait_s) or again.request

    def _followed(self, run: Run, request: Request, event: RouteDecided, outcome: Outcome) -> Request | Refused:
        """The attempt failed before its first chunk: the request one attempt on, or what the caller is told."""
        failure, now = outcome.failure or FailureClass.INTERNAL, self._runtime.clock()
        run.course = followups.failed(run.course, request, event.model, outcome, now)
        goes_on = followups.content_filter_goes_on(event, self._runtime.gateway.state.routing.policy)
        followed = followups.after(failure, request, run.course, now, content_filter_goes_on=goes_on)
        if isinstance(followed, Tell):
            return followed.refused
        return with_attempt(request, run.attempt_id(request.attempt + 1), event.model, failure, event.version)

    def _settle(self, run: Run, decided: DecidedRoute, outcome: Outcome | None) -> None:
        """Free what the attempt holds of budgets above the thread; where nobody said what it cost, find that out."""
        hold = hold_of(decided.event.attempt_id, decided.event.draw)
        if outcome is not None and outcome.status == "failed":
            self._escrow.give_back(hold)
        elif outcome is not None and outcome.cost_nanos is not None:
            self._escrow.give_back(hold, outcome.cost_nanos)
        else:
            self._escrow.find_out(run.thread, decided.event, decided.sequence)

    async def _of_the_lost(self, run: Run, request: Request, outcome: Outcome | None) -> Refused | None:
        """What the caller is told where nobody said how the attempt went."""
        run.leave_claim = True  # it may yet be settled: only the log knows
        if run.scope and await self._idempotency.remind(run.scope, run.listeners):
            return None
        tried = {"tried": list(request.tried)}
        if outcome is not None:
            return Refused(code="internal", message=outcome.message, retryable=False, metadata=tried)
        return Refused(code="timeout", message="no answer came within the deadline", metadata=tried)

    async def _at_once(self, run: Run, request: Request, body: bytes) -> DecidedRoute | Refused | None:
        """Decide now, unless somebody waits already for a budget that this request needs, and for which it is new."""
        at = self._parking.crowded(run.thread, request.key) if request.attempt == 1 else None
        if at is not None:
            return await self._decider.behind(run, at)
        return await self._decider.decide(run, request, body)

    async def _in_turn(self, run: Run, request: Request, body: bytes, place: Place) -> DecidedRoute | Refused | None:
        """Decide when it is one's turn, as often as it takes, up to the deadline."""
        told: Waiting | None = None
        while (left := request.deadline - self._runtime.clock()) > 0:
            ahead = place.ahead
            if ahead is None:
                try:
                    decided = await self._decider.decide(run, request, body)
                except LogUnavailable as error:  # it has waited so long: it waits for the log too
                    log.info("router.waits_for_the_log", request=run.request_id, error=str(error))
                    # What may have been decided under this id is being withdrawn.
                    run.base += 1
                    request = with_id(request, run.attempt_id(request.attempt))
                else:
                    if not isinstance(decided, Waiting):
                        return decided
                    told = decided
                    log.debug("request.waits", request=run.request_id, budget=told.scope, reason=told.message)
            await place.wait(ahead or (waits_at(told, run.thread) if told else place.at), left)
            if place.gone:
                return None
            if run.aborted:
                return ABORTED
        return told or await self._decider.behind(run, place.at)

    async def _conclude(self, run: Run, parsed: Parsed, refused: Refused) -> None:
        """Tell everyone who waits that it came to nothing, and free the request id for another try."""
        if run.scope and not run.leave_claim and not run.unclaimed:
            claim = Claim(state="failed", since=self._runtime.clock(), attempts=run.base + run.attempts)
            await self._runtime.claims.keep(run.scope, claim)
        run.code = refused.code
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
