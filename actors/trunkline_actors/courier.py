"""Takes a decided attempt to its provider and brings back how it went.

The reply subject of a dispatch is the router's own, since NATS tells of "no responders" only to who holds the reply
subscription: a provider without a process is noticed at once, and not at the deadline.
"""

import asyncio
from collections import Counter

import msgspec
import structlog
from msgspec import Struct
from trunkline_events import headers, subjects
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.quick import Reply
from trunkline_events.rate import Rate
from trunkline_events.secret import is_stored
from trunkline_events.thread import Books, RequestRefused, RouteDecided
from trunkline_projections.threads import books_of

from trunkline_actors import endings, money
from trunkline_actors.answer_cache import Same, name_of
from trunkline_actors.dispatch import Dispatch, Join, Outcome, encode, outcome_decoder, pack
from trunkline_actors.inflight import Run
from trunkline_actors.ledger import end, has_ended
from trunkline_actors.moment import Request
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided

log = structlog.get_logger()

GRACE = 3.0
"""Seconds after the deadline in which a provider may still say how it ended before the router answers."""

UNACKNOWLEDGED = "the log did not acknowledge the decision in time"


class DecidedRoute(Struct, frozen=True):
    """A decision in the log, and what is needed to carry it out: `body` is what is sent upstream."""

    event: RouteDecided
    sequence: int
    upstream: str
    rate: Rate
    body: bytes = b""


class Courier:
    """Dispatches attempts for one router."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._bus = runtime.bus
        self.busy: Counter[str] = Counter()
        """Attempts of each model that are with a provider now."""

    async def deliver(self, run: Run, request: Request, decided: DecidedRoute) -> Outcome | None:
        """Send an attempt to its provider; how it went, or None where nobody said so in time."""
        event = decided.event
        if run.span is not None:
            run.decisions.append((event, decided.sequence, self._runtime.clock()))
        if self._runtime.overslept(event.now) and await self._has_ended(run, decided):
            return Outcome(status="ended", served=[event.reply])  # we were stopped, and a keeper has seen to it
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[Reply] = loop.create_future()

        def settle(message: Reply) -> None:
            if not arrived.done():
                arrived.set_result(message)

        reply = self._bus.replies.expect(settle)
        run.dispatched = True
        self.busy[event.model] += 1
        left = max(0.0, request.deadline - self._runtime.clock()) + GRACE
        timer = loop.call_later(left, lambda: arrived.cancel())
        try:
            packed = pack(self._dispatch(run, request, decided), decided.body)
            for subject in self._subjects(event):
                await self._bus.send(subject, packed, {headers.REPLY: run.listeners[0]}, reply)
                # From here on it is the provider's: if its process dies, our knowing of it must not hide that.
                self._runtime.held.discard(event.attempt_id)
                self._runtime.waiting[event.attempt_id] = reply
                message = await arrived
                if not _unheard(message):
                    break
                arrived = loop.create_future()
            outcome = _read(message)
        except asyncio.CancelledError:
            if not arrived.cancelled():
                raise
            return None
        finally:
            timer.cancel()
            self._bus.replies.forget(reply)
            self._runtime.waiting.pop(event.attempt_id, None)
            run.dispatched = False
            self.busy[event.model] -= 1
        run.sent = max(run.sent, outcome.sent)
        run.ended = outcome.status == "ended"
        if outcome.status in {"failed", "unserved"}:
            self._runtime.held.add(event.attempt_id)
        if outcome.status == "unserved":
            outcome = await self._record_unserved(run, event, outcome)
        if outcome.books is not None:
            self._runtime.ledger.adopt(run.thread, outcome.books, outcome.books_seq)
        return outcome

    def _subjects(self, event: RouteDecided) -> list[str]:
        """Where to send an attempt, one after the other as long as nobody listens there."""
        operation = event.asked.operation
        usual = subjects.provider_endpoint(event.provider, operation)
        provider = self._runtime.gateway.state.registry.providers.get(event.provider)
        if provider is None or not is_stored(provider.secret):
            return [usual]
        # Once more at the end: a process that has just been unlocked leaves the one place for the other.
        return [usual, subjects.locked_endpoint(event.provider, operation), usual]

    async def _has_ended(self, run: Run, decided: DecidedRoute) -> bool:
        runtime = self._runtime
        return await has_ended(runtime.log, runtime.ledger, run.thread, decided.event.attempt_id, decided.sequence)

    def _dispatch(self, run: Run, request: Request, decided: DecidedRoute) -> Dispatch:
        event = decided.event
        return Dispatch(
            request_id=run.request_id,
            attempt_id=event.attempt_id,
            attempt=event.attempt,
            attempts=run.attempts,
            thread=run.thread,
            books=books_of(event, decided.sequence),
            books_seq=decided.sequence,
            operation=event.asked.operation,
            model=event.model,
            version=event.version,
            upstream=decided.upstream,
            rate=decided.rate,
            reserve_nanos=event.reserve_nanos,
            input_bound=event.input_bound,
            stream=event.asked.stream,
            sent=run.sent,
            decided_at=event.now,
            deadline=request.deadline,
            listeners=run.listeners,
            max_tokens=event.max_tokens,
            include_usage=request.parsed.include_usage,
            claim=run.scope,
            unclaimed=run.unclaimed,
            fingerprint=run.fingerprint,
            key=event.key,
            limits=run.limits,
            cache=_kept_as(event, decided.body) if run.cache_s else "",
            clamped=bool(run.cache_s) and self._is_clamped(event),
            cache_s=run.cache_s,
            slices=event.slices,
            traceparent=run.traceparent,
        )

    def _is_clamped(self, event: RouteDecided) -> bool:
        model = self._runtime.gateway.state.registry.models.get(event.model)
        wanted = money.wanted_output(event.asked.max_tokens, model.max_output if model else None)
        return event.max_tokens is not None and event.max_tokens < wanted

    async def _record_unserved(self, run: Run, event: RouteDecided, outcome: Outcome) -> Outcome:
        """No process took the attempt, so nobody else will say that it failed."""
        failure = Failure(kind=FailureClass.UNAVAILABLE, message=outcome.message)
        if not await self.withdraw(run, event, failure):
            return Outcome(status="ended", served=[event.reply])  # a keeper was quicker, and has told the caller
        return Outcome(status="failed", failure=failure.kind, message=failure.message, called=False)

    async def withdraw_uncertain(self, run: Run, event: RouteDecided) -> int | None:
        """End an attempt whose decision may or may not be in the log: it was never sent, and must not be billed.

        That it can't be seen there proves nothing, since it may be on its way still. So a refusal is appended under its
        id: either that is stored, and the decision can't be any more, or what is there already is found.

        0 where it costs nothing now. The decision's sequence where somebody else has ended it, at what cost the log
        says. None where another decision is there: the same request was sent again, and is being served.
        """

        def refuse(books: Books, now: float) -> RequestRefused:
            return RequestRefused(
                request_id=event.request_id,
                key=event.key,
                code="unavailable",
                message=UNACKNOWLEDGED,
                asked=event.asked,
                needed_nanos=event.reserve_nanos,
                **money.fields(money.turn(books, now)),
            )

        command: Command[Books] = Command(
            category="thread",
            aggregate=run.thread,
            id=f"{event.attempt_id}/decided",
            decide=refuse,
            actor=self._runtime.name,
            cause=run.request_id,
            persistent=True,
        )
        decided = await self._runtime.shell.execute(self._runtime.ledger, command)
        assert isinstance(decided, Decided)
        if not isinstance(decided.event, RouteDecided):
            return 0
        if decided.event.draw != event.draw:
            return None
        failure = Failure(kind=FailureClass.UNAVAILABLE, message=UNACKNOWLEDGED)
        return 0 if await self.withdraw(run, event, failure) else decided.sequence

    async def withdraw(self, run: Run, event: RouteDecided, failure: Failure) -> bool:
        """End an attempt that was never sent, so that it costs nothing; false where it had ended otherwise."""
        attempt = endings.of_decision(run.thread, event, run.traceparent)
        runtime = self._runtime
        latency = (runtime.clock() - event.now) * 1000
        ending = endings.failed(attempt, failure, latency)
        return await end(runtime.shell, runtime.ledger, attempt, ending, actor=runtime.name) is not None

    async def tell_of(self, scope: str, inbox: str) -> None:
        """Whoever runs this request: this caller waits for it too."""
        await self._bus.publish(subjects.JOIN, encode(Join(scope, inbox)), reply=self._bus.nats.new_inbox())


def _kept_as(event: RouteDecided, body: bytes) -> str:
    """The name that whoever asks the very same looks for."""
    same = Same(
        key=event.key,
        policy_version=event.policy_version,
        rule=event.rule,
        override=event.override,
        default_model=event.basis.default_model,
        preferences=event.preferences,
        operation=event.asked.operation,
    )
    return name_of(same, body)


def _unheard(message: Reply) -> bool:
    return (message.headers or {}).get(headers.STATUS) == "503"


def _read(message: Reply) -> Outcome:
    fields = message.headers or {}
    if _unheard(message) or fields.get(headers.ERROR_CODE) == "503":  # nobody is there, or it stops
        return Outcome(status="unserved", message="no process serves this provider right now")
    if headers.ERROR_CODE in fields:
        return Outcome(status="lost", message="the provider's process failed; what the attempt did is being settled")
    try:
        return outcome_decoder.decode(message.data)
    except msgspec.DecodeError as error:
        log.error("courier.unreadable_outcome", error=str(error))  # noqa: TRY400 - no trace is needed
        return Outcome(status="lost", message="the provider's process answered something unreadable")
