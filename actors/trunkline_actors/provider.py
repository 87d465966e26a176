"""The provider: runs attempts upstream, streams straight to the caller, and settles each exactly once."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

import structlog
from msgspec import structs
from trunkline_events import headers, subjects
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_events.thread import Ending, ThreadEvent
from trunkline_events.usage import Usage
from trunkline_projections.threads import books_of

from trunkline_actors import endings
from trunkline_actors.adapters import Adapter, Call, Chunk
from trunkline_actors.answers import Answering
from trunkline_actors.bus import Delivery, trace_id
from trunkline_actors.dispatch import Dispatch, Outcome, encode, read_join, unpack
from trunkline_actors.endings import Metering
from trunkline_actors.inflight import ABORT_GRACE, abort_target, unknown_request
from trunkline_actors.ledger import end, has_ended
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.running import Attempts, Running
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Decided

log = structlog.get_logger()

OPERATIONS = ("chat", "embeddings")


class ProviderActor(ServiceActor):
    """Serves one provider instance: calls its upstream, one attempt at a time beside many others."""

    def __init__(self, runtime: Runtime, provider: Provider, make_adapter: Callable[[Provider], Adapter]) -> None:
        metadata = {"process": runtime.name, "instance": headers.encode_value(provider.id), "kind": provider.kind}
        super().__init__(runtime.bus, "trunkline-provider", runtime.version, metadata)
        self.provider = provider
        self._runtime = runtime
        self._adapter = make_adapter(provider)
        self._attempts = Attempts()

    def endpoints(self) -> list[Endpoint]:
        instance = self.provider.id
        own = [
            Endpoint(name=name, subject=subjects.provider_endpoint(instance, name), handler=self._serve)
            for name in OPERATIONS
        ]
        return [
            *own,
            Endpoint(name="ready", subject=subjects.provider_endpoint(instance, "ready"), handler=self._ready),
            Endpoint(name="check", subject=subjects.provider_endpoint(instance, "check"), handler=self._check),
            Endpoint(name="abort", subject=subjects.ABORT, handler=self._abort, queue=""),
            Endpoint(name="join", subject=subjects.JOIN, handler=self._join, queue=""),
        ]

    async def stopped(self) -> None:
        await super().stopped()
        await self._adapter.close()

    # -- endpoints -------------------------------------------------------------------------------------------------

    async def _ready(self, delivery: Delivery) -> Refused | None:
        await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    async def _check(self, delivery: Delivery) -> Refused | None:
        try:
            await self._adapter.check()
        except UpstreamError as error:
            return Refused(code="unavailable", message=f"{self.provider.id}: {error.failure.message}")
        await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    async def _abort(self, delivery: Delivery) -> Refused | None:
        request_id = abort_target(delivery.data)
        if isinstance(request_id, Refused):
            return request_id
        found = self._running_for(request_id)
        if not found:
            await asyncio.sleep(ABORT_GRACE)
            found = self._running_for(request_id)  # it may have overtaken the attempt that it means
        if not found:
            return unknown_request(request_id)
        for running in found:
            running.cut_short("aborted")
        await asyncio.gather(*(running.stopped for running in found))
        await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    def _running_for(self, request_id: str) -> list[Running]:
        return [one for one in self._attempts if one.dispatch.request_id == request_id]

    async def _join(self, delivery: Delivery) -> Refused | None:
        join = read_join(delivery.data)
        if join is None or not self.bus.may_reply(join.inbox):
            return None
        for running in self._attempts:
            if running.dispatch.claim == join.scope and await running.answering.add(join.inbox):
                await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    # -- one attempt -----------------------------------------------------------------------------------------------

    async def _serve(self, delivery: Delivery) -> Refused | None:
        unpacked = unpack(delivery.data)
        if unpacked is None:
            return Refused(code="invalid_request", message=f"only routers send here; send chats to {subjects.CHAT}")
        dispatch, body = unpacked
        if self._attempts.knows(dispatch.attempt_id):
            return None
        if self._runtime.overslept(dispatch.decided_at) and await self._has_ended(dispatch):
            await self.bus.publish(delivery.reply, encode(Outcome(status="ended")))
            return None
        listeners = [inbox for inbox in dispatch.listeners if self.bus.may_reply(inbox)]
        answering = Answering(self._runtime, dispatch, self.provider.id, listeners)
        loop = asyncio.get_running_loop()
        work = asyncio.current_task()
        assert work is not None
        running = Running(dispatch=dispatch, answering=answering, work=work, stopped=loop.create_future())
        answering.on_abandoned = lambda: running.cut_short("abandoned")
        self._runtime.open.add(dispatch.attempt_id)
        with self._attempts.holding(running):
            try:
                outcome = await self._settle(running, body)
            finally:
                answering.close()
                running.stop()
        _report(dispatch, self.provider.id, outcome, running)
        if outcome.status == "ended":
            outcome = structs.replace(outcome, served=answering.served)
            self._runtime.answered([dispatch.attempt_id])
        await self.bus.publish(delivery.reply, encode(outcome))
        return None

    async def _settle(self, running: Running, body: bytes) -> Outcome:
        """Call upstream and record how it ended, whatever happens."""
        limit = self.provider.max_concurrency
        if limit is not None and len(self._attempts) > limit:
            busy = Failure(kind=FailureClass.OVERLOADED, message=f"{limit} calls are running, its max_concurrency")
            return await self._failed(running, busy)
        try:
            if running.dispatch.stream:
                return await self._stream(running, body)
            return await self._plain(running, body)
        except UpstreamError as error:
            running.stop()
            if running.first is None:
                return await self._failed(running, error.failure)
            return await self._broken(running, error.failure)
        except asyncio.CancelledError:
            if running.cut is None:
                # The process is being cut while it drains: whatever was generated is settled all the same.
                running.cut = "stopping"
            while running.work.cancelling():
                running.work.uncancel()
            running.stop()
            return await self._aborted(running)

    async def _plain(self, running: Running, body: bytes) -> Outcome:
        dispatch = running.dispatch
        call = self._call(dispatch, body)
        serve = self._adapter.embed if dispatch.operation == "embeddings" else self._adapter.complete
        answer = await serve(call)
        running.stop()
        now = time.monotonic()
        latency = running.milliseconds(now)
        metering = Metering(
            rate=dispatch.rate,
            usage=answer.usage,
            bound=Usage(input_tokens=dispatch.input_bound, output_tokens=len(answer.body)),
            latency_ms=latency,
            ttft_ms=latency,
            finish=answer.finish,
        )
        decided = await self._record(running, metering)
        if decided is not None:
            await running.answering.whole(answer.body, decided)
        return _ended(running.dispatch, decided)

    async def _stream(self, running: Running, body: bytes) -> Outcome:
        call = self._call(running.dispatch, body)
        usage, finish = None, "stop"
        stream = self._adapter.stream(call)
        async for item in stream:
            if isinstance(item, Chunk):
                if running.first is None:
                    running.first = time.monotonic()
                running.text_bytes += item.text_bytes
                await running.answering.chunk(item.data)
                if running.cut is not None:  # nats-py may have swallowed the cancellation
                    raise asyncio.CancelledError
            else:
                usage, finish = item.usage, item.finish
        running.stop()
        decided = await self._record(running, self._metering(running, usage, finish))
        if decided is not None:
            await running.answering.end(decided)
        return _ended(running.dispatch, decided)

    async def _broken(self, running: Running, failure: Failure) -> Outcome:
        """The stream broke after its first chunk: what came is settled, and the caller is told."""
        metering = self._metering(running, None, "error", partial=True)
        decided = await self._record(running, metering)
        if decided is not None:
            await running.answering.broken(failure, decided)
        return _ended(running.dispatch, decided)

    async def _aborted(self, running: Running) -> Outcome:
        metering = self._metering(running, None, running.cut or "aborted", partial=True, aborted=True)
        decided = await self._record(running, metering)
        if decided is not None:
            await running.answering.aborted(decided)
        return _ended(running.dispatch, decided)

    async def _failed(self, running: Running, failure: Failure) -> Outcome:
        decision = endings.failed(self._attempt(running.dispatch), failure, running.milliseconds())
        decided = await self._end(running, decision)
        if decided is None:
            return _ended(running.dispatch, None)
        return Outcome(
            status="failed",
            failure=failure.kind,
            message=failure.message,
            retry_after=failure.retry_after,
            sent=running.answering.sent,
            books=books_of(cast("ThreadEvent", decided.event), decided.sequence),
            books_seq=decided.sequence,
        )

    # -- the books -------------------------------------------------------------------------------------------------

    def _metering(
        self, running: Running, usage: Usage | None, finish: str, *, partial: bool = False, aborted: bool = False
    ) -> Metering:
        sent = running.first is not None
        # Text has no more tokens than bytes, and no provider bills for what it has not begun to send.
        bound = Usage(input_tokens=running.dispatch.input_bound, output_tokens=running.text_bytes)
        return Metering(
            rate=running.dispatch.rate,
            usage=usage,
            bound=bound,
            latency_ms=running.milliseconds(),
            ttft_ms=running.milliseconds(running.first) if sent else None,
            finish=finish,
            partial=partial,
            aborted=aborted,
        )

    async def _record(self, running: Running, metering: Metering) -> Decided | None:
        return await self._end(running, endings.metered(self._attempt(running.dispatch), metering))

    async def _end(self, running: Running, ending: endings.Ending) -> Decided | None:
        """Append the ending; None where a keeper ended the attempt, having taken us for dead."""
        runtime, dispatch = self._runtime, running.dispatch
        # No expectation guards what belongs to no thread, and the duplicate window may be past.
        unguarded = dispatch.thread == subjects.NO_THREAD and runtime.stopped_since(running.started)
        if unguarded and await self._has_ended(dispatch):
            return None
        runtime.ledger.adopt(dispatch.thread, dispatch.books, dispatch.books_seq)
        attempt = self._attempt(dispatch)
        return await end(runtime.shell, runtime.ledger, attempt, ending, actor=runtime.name)

    async def _has_ended(self, dispatch: Dispatch) -> bool:
        runtime = self._runtime
        return await has_ended(runtime.log, runtime.ledger, dispatch.thread, dispatch.attempt_id, dispatch.books_seq)

    def _attempt(self, dispatch: Dispatch) -> endings.Attempt:
        return endings.Attempt(
            aggregate=dispatch.thread,
            request_id=dispatch.request_id,
            attempt_id=dispatch.attempt_id,
            attempt=dispatch.attempt,
            model=dispatch.model,
            provider=self.provider.id,
            reserve_nanos=dispatch.reserve_nanos,
            books=dispatch.books,
            key=dispatch.key,
            slices=dispatch.slices,
            traceparent=dispatch.traceparent,
        )

    def _call(self, dispatch: Dispatch, body: bytes) -> Call:
        left = dispatch.deadline - self._runtime.clock()
        return Call(
            body=body,
            model=dispatch.upstream,
            max_tokens=dispatch.max_tokens,
            include_usage=dispatch.include_usage,
            timeout=max(0.0, min(self.provider.timeout_s, left)),
        )


def _ended(dispatch: Dispatch, decided: Decided | None) -> Outcome:
    """What the router is told; books only where there are any to remember."""
    if decided is None:
        return Outcome(status="ended")
    cost = endings.cost_of(cast("Ending", decided.event))
    if dispatch.thread == subjects.NO_THREAD:
        return Outcome(status="ended", cost_nanos=cost)
    books = books_of(cast("ThreadEvent", decided.event), decided.sequence)
    return Outcome(status="ended", cost_nanos=cost, books=books, books_seq=decided.sequence)


def _report(dispatch: Dispatch, provider: str, outcome: Outcome, running: Running) -> None:
    """A line for whoever reads logs; what failed is worth one by default."""
    if outcome.status == "ended" and not log.is_enabled_for(logging.DEBUG):
        return
    write = log.debug if outcome.status == "ended" else log.warning
    write(
        "attempt.ended" if outcome.status == "ended" else "attempt.failed",
        request=dispatch.request_id,
        attempt=dispatch.attempt_id,
        thread=dispatch.thread,
        model=dispatch.model,
        provider=provider,
        trace=trace_id(dispatch.traceparent),
        code=outcome.failure,
        seconds=running.milliseconds() / 1000,
    )
